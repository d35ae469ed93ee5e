//! What librdkafka tells besides records: logs, errors, statistics and rebalances.

use super::error::is_login;
use crate::log::TopicPartition;
use metrics::{counter, gauge};
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tracing::{debug, error, info, warn};

/// A client whose broker is away reports so dozens of times a second. The metric counts them all.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// The client tries again every second, but reports an identical error of a broker only every 30 seconds.
const DENIAL_LIFETIME: Duration = Duration::from_mins(1);

/// How the group's partitions moved.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

/// The context of every client of this crate.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The consumer group, empty for clients that are in none.
    group: String,
    rebalanced: Mutex<VecDeque<Rebalanced>>,
    reported: Mutex<Option<Instant>>,
    admission: Admission,
}

/// Why the brokers did not let this client in.
#[derive(Debug)]
struct Denial {
    at: Instant,
    reason: String,
}

/// Whether the brokers let a client in; shared with whoever asks through it.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<Mutex<Option<Denial>>>);

impl Admission {
    /// Requests of a client that is not let in only time out; this is what they waited for.
    pub(super) fn denied(&self) -> Option<String> {
        let denied = lock(&self.0);
        let denial = denied
            .as_ref()
            .filter(|denial| denial.at.elapsed() < DENIAL_LIFETIME)?;
        Some(denial.reason.clone())
    }

    fn deny(&self, reason: &str) {
        *lock(&self.0) = Some(Denial {
            at: Instant::now(),
            reason: reason.to_owned(),
        });
    }
}

impl Context {
    pub(super) fn for_group(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            ..Self::default()
        }
    }

    /// Whether an error is worth a line: the last one is some time ago.
    fn may_report(&self) -> bool {
        let mut reported = lock(&self.reported);
        let due = reported.is_none_or(|at| at.elapsed() > REPORT_INTERVAL);
        if due {
            *reported = Some(Instant::now());
        }
        due
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(super) fn take_rebalanced(&self) -> Option<Rebalanced> {
        lock(&self.rebalanced).pop_front()
    }
}

/// A wrong name, password or certificate; not a handshake that a broker's restart has cut off.
fn is_denial(code: Option<RDKafkaErrorCode>, reason: &str) -> bool {
    is_login(code) || (code == Some(RDKafkaErrorCode::SSL) && reason.contains("certificate"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition {
            topic: element.topic().to_owned(),
            partition: element.partition(),
        })
        .collect()
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                error!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning => {
                warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => {
                debug!(target: "librdkafka", facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if is_denial(code, reason) {
            self.admission.deny(reason);
        }
        let code = code.map_or_else(|| "none".to_owned(), |code| format!("{code:?}"));
        counter!("saga_log_client_errors_total", "code" => code).increment(1);
        if !self.may_report() {
            return;
        }
        warn!(
            error = &error as &dyn std::error::Error,
            messaging.consumer.group.name = self.group,
            "the Kafka client reports: {reason}"
        );
    }

    fn stats(&self, statistics: Statistics) {
        for (topic, of_topic) in &statistics.topics {
            for (id, partition) in &of_topic.partitions {
                // The pseudo partition -1, and partitions of other members, have no lag of ours.
                if *id >= 0 && partition.desired && partition.consumer_lag >= 0 {
                    self.lag(topic, *id, partition.consumer_lag);
                }
            }
        }
    }
}

impl Context {
    pub(super) fn lag(&self, topic: &str, partition: i32, records: i64) {
        gauge!(
            "saga_consumer_lag",
            "topic" => topic.to_owned(),
            "partition" => partition.to_string(),
            "group" => self.group.clone()
        )
        .set(records as f64);
    }
}

impl ConsumerContext for Context {
    /// Runs inside a poll, so whatever was polled before is finished and its offsets are stored: the client commits
    /// them while it gives the partitions back. A lost assignment belongs to somebody else already, and commits nothing.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) if list.count() > 0 => {
                let partitions = partitions_of(list);
                info!(
                    messaging.consumer.group.name = self.group,
                    messaging.kafka.partitions = partitions.len(),
                    lost = consumer.assignment_lost(),
                    "partitions are revoked"
                );
                lock(&self.rebalanced).push_back(Rebalanced::Revoked(partitions));
            }
            Rebalance::Error(error) => warn!(
                error = error as &dyn std::error::Error,
                messaging.consumer.group.name = self.group,
                "a rebalance failed, the client joins again"
            ),
            Rebalance::Revoke(_) | Rebalance::Assign(_) => {}
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) if list.count() > 0 => {
                let partitions = partitions_of(list);
                info!(
                    messaging.consumer.group.name = self.group,
                    messaging.kafka.partitions = partitions.len(),
                    "partitions are assigned"
                );
                lock(&self.rebalanced).push_back(Rebalanced::Assigned(partitions));
            }
            Rebalance::Assign(_) | Rebalance::Revoke(_) | Rebalance::Error(_) => {}
        }
    }

    fn commit_callback(
        &self,
        result: rdkafka::error::KafkaResult<()>,
        offsets: &TopicPartitionList,
    ) {
        if let Err(error) = result {
            counter!("saga_offset_commit_failures_total", "group" => self.group.clone())
                .increment(1);
            warn!(
                error = &error as &dyn std::error::Error,
                messaging.consumer.group.name = self.group,
                messaging.kafka.partitions = offsets.count(),
                "offsets were not committed: these records will be read again"
            );
        }
    }
}
