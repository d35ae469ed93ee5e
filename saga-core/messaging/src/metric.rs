//! Descriptions of this crate's metrics, for readers of `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric's kind, its name, and its description in one line.
pub type Help = (Kind, &'static str, &'static str);

/// Declares the metrics of a crate, each by its kind, its name and its description.
#[macro_export]
macro_rules! metric_table {
    ($($kind:ident $name:literal: $description:literal,)*) => {
        &[$(($crate::metric::Kind::$kind, $name, $description)),*]
    };
}

/// Registers the descriptions with the recorder, which must be installed.
pub fn describe(help: &[Help]) {
    for (kind, name, text) in help {
        match kind {
            Kind::Counter => describe_counter!(*name, *text),
            Kind::Gauge => describe_gauge!(*name, *text),
            Kind::Histogram => describe_histogram!(*name, *text),
        }
    }
}

/// The metrics of every service that consumes or produces.
pub const HELP: &[Help] = metric_table! {
    Counter "saga_barrier_total": "Commands, by the barrier's decision",
    Histogram "saga_batch_records": "Records that were consumed together",
    Histogram "saga_batch_seconds": "Transactions of a participant's batches",
    Histogram "saga_batcher_batch_items": "Requests that shared a transaction",
    Counter "saga_batcher_failures_total": "Shared transactions that failed",
    Gauge "saga_clock_skew_seconds": "How far this machine's clock is ahead of the database's",
    Histogram "saga_command_handling_seconds": "The handler's part of a command",
    Counter "saga_commands_total": "Commands that were decided, by type and outcome",
    Gauge "saga_consumer_blocked_records": "Records that cannot be read because another producer's transaction is open before them: an alarm is due above 0",
    Gauge "saga_consumer_lag": "Records behind the end of a partition",
    Counter "saga_dead_letters_total": "Records that could not be processed, by topic and reason",
    Gauge "saga_expired_intents": "External calls whose outcome can no longer be learned: a person is needed",
    Histogram "saga_external_call_seconds": "External calls, by command and outcome",
    Histogram "saga_give_way_seconds": "How long batches of late commands were throttled because of the orchestrator's input lag",
    Gauge "saga_inbox_partitions_ahead_days": "Days for which the barrier has partitions: an alarm is due below three",
    Gauge "saga_inbox_partitions_left": "Partitions of the barrier below the floor that could not be dropped yet",
    Counter "saga_intents_unreadable_total": "Rows of external calls that cannot be read: a person is needed",
    Counter "saga_log_client_errors_total": "Errors of the Kafka client, by code",
    Gauge "saga_log_throttled_seconds": "Longest delay of a broker's answers in the last five seconds because the client is over its quota",
    Counter "saga_missing_partition_total": "Transactions that found no partition for a row, by table: an alarm is due",
    Counter "saga_offset_commit_failures_total": "Offsets that could not be committed: their records are read again",
    Gauge "saga_open_intents": "External calls that are not settled and answered yet",
    Gauge "saga_outbox_backlog_records": "Accepted messages that wait for Kafka",
    Counter "saga_outbox_left_to_sweep_total": "Outbox rows that memory had no room for",
    Counter "saga_outbox_refused_total": "Outbox records that Kafka refuses: a person is needed",
    Counter "saga_outbox_swept_total": "Outbox rows that a crash or an outage had left behind",
    Gauge "saga_own_floor_age_seconds": "Age of the participant's own floor: its barrier reaches back this far",
    Gauge "saga_partition_missing": "1 while a partition is missing that a row needs, by table",
    Counter "saga_partitions_dropped_total": "Partitions that retention has dropped, by table",
    Counter "saga_publish_failures_total": "Batches of records that were not acknowledged",
    Histogram "saga_publish_seconds": "From producing a batch of records to its last acknowledgement",
    Counter "saga_records_consumed_total": "Records consumed, by topic",
    Counter "saga_records_lost_total": "Records that retention removed before they were consumed: an alarm is due",
    Counter "saga_record_times_refused_total": "Publishings whose record times brokers refused, by topic: clocks differ",
    Counter "saga_records_from_the_future_total": "Batches with a record whose time is ahead of the database's clock, by topic",
    Counter "saga_records_produced_total": "Records acknowledged",
    Counter "saga_settlements_left_total": "Outcomes of external calls that could not be written and were asked for again",
    Gauge "saga_work_waiting_seconds": "How long the oldest piece of each kind of work has been waiting to be finished: an alarm is due above fifteen",
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_metric_has_a_help_text() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let told: Vec<&str> = HELP.iter().map(|(_, name, _)| *name).collect();
        assert_eq!(
            saga_test_support::metrics::undescribed(&sources, &told),
            [""; 0]
        );
    }
}
