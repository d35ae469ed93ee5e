//! What this crate's metrics mean, for whoever reads `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// A metric, and what it says in one line.
pub type Help = (Kind, &'static str, &'static str);

/// Tells the recorder; it must be installed.
pub fn describe(help: &[Help]) {
    for (kind, name, text) in help {
        match kind {
            Counter => describe_counter!(*name, *text),
            Gauge => describe_gauge!(*name, *text),
            Histogram => describe_histogram!(*name, *text),
        }
    }
}

/// Of every service that consumes or produces.
pub const HELP: &[Help] = &[
    (
        Counter,
        "saga_barrier_total",
        "Commands, by what the barrier said about them",
    ),
    (
        Histogram,
        "saga_batch_records",
        "Records that were consumed together",
    ),
    (
        Histogram,
        "saga_batch_seconds",
        "Transactions of a participant's batches",
    ),
    (
        Histogram,
        "saga_batcher_batch_items",
        "Requests that shared a transaction",
    ),
    (
        Counter,
        "saga_batcher_failures_total",
        "Shared transactions that failed",
    ),
    (
        Histogram,
        "saga_command_handling_seconds",
        "The handler's part of a command",
    ),
    (
        Counter,
        "saga_commands_total",
        "Commands that were decided, by type and outcome",
    ),
    (
        Gauge,
        "saga_consumer_lag",
        "Records behind the end of a partition",
    ),
    (
        Counter,
        "saga_dead_letters_total",
        "Records that could not be processed, by topic and reason",
    ),
    (
        Gauge,
        "saga_expired_intents",
        "External calls whose outcome nobody can learn any more: a person is needed",
    ),
    (
        Histogram,
        "saga_external_call_seconds",
        "External calls, by command and outcome",
    ),
    (
        Histogram,
        "saga_give_way_seconds",
        "How long batches of late commands waited because the orchestrator had enough to do",
    ),
    (
        Gauge,
        "saga_inbox_partitions_ahead_days",
        "Days for which the barrier has partitions: an alarm is due below three",
    ),
    (
        Gauge,
        "saga_inbox_partitions_left",
        "Partitions of the barrier below the floor that could not be dropped yet",
    ),
    (
        Counter,
        "saga_intents_unreadable_total",
        "Rows of external calls that cannot be read: a person is needed",
    ),
    (
        Counter,
        "saga_log_client_errors_total",
        "Errors of the Kafka client, by code",
    ),
    (
        Counter,
        "saga_missing_partition_total",
        "Transactions that found no partition for a row, by table: an alarm is due",
    ),
    (
        Counter,
        "saga_offset_commit_failures_total",
        "Offsets that could not be committed: their records come again",
    ),
    (
        Gauge,
        "saga_open_intents",
        "External calls that are not settled and answered yet",
    ),
    (
        Gauge,
        "saga_outbox_backlog_records",
        "Accepted messages that wait for Kafka",
    ),
    (
        Counter,
        "saga_outbox_left_to_sweep_total",
        "Outbox rows that memory had no room for",
    ),
    (
        Counter,
        "saga_outbox_refused_total",
        "Outbox records that Kafka refuses: a person is needed",
    ),
    (
        Counter,
        "saga_outbox_swept_total",
        "Outbox rows that a crash or an outage had left behind",
    ),
    (
        Gauge,
        "saga_own_floor_age_seconds",
        "Since the participant's own floor: its barrier reaches back so far",
    ),
    (
        Gauge,
        "saga_partition_missing",
        "1 while a partition is missing that a row needs, by table",
    ),
    (
        Counter,
        "saga_partitions_dropped_total",
        "Partitions that retention has dropped, by table",
    ),
    (
        Counter,
        "saga_publish_failures_total",
        "Batches of records that were not acknowledged",
    ),
    (
        Histogram,
        "saga_publish_seconds",
        "From producing a batch of records to its last acknowledgement",
    ),
    (
        Counter,
        "saga_records_consumed_total",
        "Records consumed, by topic",
    ),
    (
        Counter,
        "saga_records_lost_total",
        "Records that retention removed before they were consumed: an alarm is due",
    ),
    (
        Counter,
        "saga_records_produced_total",
        "Records acknowledged",
    ),
    (
        Counter,
        "saga_settlements_left_total",
        "Outcomes of external calls that could not be written and were asked for again",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_metric_says_what_it_means() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let told: Vec<&str> = HELP.iter().map(|(_, name, _)| *name).collect();
        assert_eq!(saga_testkit::metrics::undescribed(&sources, &told), [""; 0]);
    }
}
