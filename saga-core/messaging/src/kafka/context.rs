//! Receives logs, errors, statistics and rebalances from librdkafka.

use super::{
    admission::{Admission, is_denial},
    standstill::{Standstill, Standstills},
};
use crate::{log::TopicPartition, progress::Progress};
use metrics::{counter, gauge};
use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
    statistics::Partition,
};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tracing::{debug, error, info, warn};

/// Time between two log lines about errors: a client whose broker is unavailable reports dozens of errors a second. The
/// metric counts all of them.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two log lines about throttling: quotas seldom change within a minute.
const THROTTLE_REPORT_INTERVAL: Duration = Duration::from_mins(1);

/// A change of the member's assigned partitions.
#[derive(Debug)]
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

/// The context of every client of this crate.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The consumer group; empty for clients without one.
    group: String,
    rebalanced: Mutex<VecDeque<Rebalanced>>,
    reported: Mutex<Option<Instant>>,
    admission: Admission,
    /// Is notified of partitions from which nothing more can be read.
    progress: Progress,
    standstills: Mutex<Standstills>,
    throttled: Mutex<Option<Instant>>,
    /// Set when the client is no longer needed, so that its reports are useless.
    over: AtomicBool,
}

impl Context {
    pub(super) fn for_group(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            ..Self::default()
        }
    }

    /// Returns a context that reports the progress of its consumer.
    pub(super) fn with_progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Marks the client as no longer needed. While it closes, its brokers may become unavailable too.
    pub(super) fn is_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the last log line about an error is long enough ago.
    fn may_report(&self) -> bool {
        is_due(&self.reported, REPORT_INTERVAL)
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(super) fn take_rebalanced(&self) -> Option<Rebalanced> {
        lock(&self.rebalanced).pop_front()
    }
}

/// Returns `true` and restarts the interval if the last time is longer ago than `interval`.
fn is_due(last: &Mutex<Option<Instant>>, interval: Duration) -> bool {
    let mut last = lock(last);
    let due = last.is_none_or(|at| at.elapsed() > interval);
    if due {
        *last = Some(Instant::now());
    }
    due
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
        if self.over.load(Ordering::Relaxed) {
            debug!(target: "librdkafka", facility, "{message}");
            return;
        }
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
        if self.over.load(Ordering::Relaxed) || !self.may_report() {
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
                // The pseudo partition -1 and the partitions of other members are skipped.
                if *id < 0 || !partition.desired {
                    continue;
                }
                self.look_for_standstill(topic, *id, partition);
                // A group that has committed nothing has no lag.
                if partition.consumer_lag >= 0 {
                    // The client counts up to the last stable offset; the records of an open transaction and those
                    // after it count too.
                    let unstable = (partition.hi_offset - partition.ls_offset).max(0);
                    self.lag(topic, *id, partition.consumer_lag + unstable);
                }
            }
        }
        self.look_for_throttling(&statistics);
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

    /// Resets the metrics and the block of a partition that is no longer assigned.
    pub(super) fn gone(&self, topic: &str, partition: i32) {
        self.lag(topic, partition, 0);
        self.blocked(topic, partition, None);
    }

    fn look_for_standstill(&self, topic: &str, id: i32, partition: &Partition) {
        let now = tokio::time::Instant::now();
        let found = lock(&self.standstills).look(topic, id, partition, now);
        self.blocked(topic, id, found);
    }

    fn blocked(&self, topic: &str, partition: i32, standstill: Option<Standstill>) {
        gauge!(
            "saga_consumer_blocked_records",
            "topic" => topic.to_owned(),
            "partition" => partition.to_string(),
            "group" => self.group.clone()
        )
        .set(standstill.map_or(0.0, |one| one.records as f64));
        let why = standstill.map(|Standstill { offset, records }| {
            format!(
                "{records} records of {topic}/{partition} cannot be read: somebody else's transaction is open since \
                 offset {offset}, and the broker ends it after the transaction.timeout.ms of its producer"
            )
        });
        if let Some(why) = &why
            && self.may_report()
        {
            warn!(
                messaging.consumer.group.name = self.group,
                messaging.kafka.topic = topic,
                messaging.kafka.partition = partition,
                "{why}"
            );
        }
        self.progress.block(topic, partition, why);
    }

    /// Reports throttling: a broker delays its answers to a client that exceeds its quota.
    fn look_for_throttling(&self, statistics: &Statistics) {
        let worst = statistics
            .brokers
            .values()
            .filter_map(|broker| broker.throttle.as_ref())
            .map(|window| window.max)
            .max()
            .unwrap_or_default();
        gauge!(
            "saga_log_throttled_seconds",
            "client" => statistics.name.clone(),
            "group" => self.group.clone()
        )
        .set(worst as f64 / 1_000.0);
        if worst > 0 && is_due(&self.throttled, THROTTLE_REPORT_INTERVAL) {
            warn!(
                messaging.consumer.group.name = self.group,
                longest_ms = worst,
                "throttled by the broker: the {} with the client id '{}' is over its quota",
                statistics.client_type,
                statistics.client_id
            );
        }
    }
}

impl ConsumerContext for Context {
    /// Runs inside a poll, so everything polled before is finished and its offsets are stored: the client commits them
    /// when it gives the partitions back. A lost assignment belongs to another member already, and commits nothing.
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
