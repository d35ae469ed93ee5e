//! Help texts of the orchestrator's own metrics.

use saga_messaging::{
    metric::{self, Help},
    metric_table,
};

const HELP: &[Help] = metric_table! {
    Histogram "saga_batch_duration_seconds": "Transactions of batches of inputs",
    Histogram "saga_batch_inputs": "Inputs that shared a transaction",
    Gauge "saga_commands_queued": "Commands sent here that their participants have not picked up",
    Counter "saga_dead_letters_decided_total": "Dead letters that were replayed or discarded",
    Gauge "saga_dead_letters_open": "Dead letters that wait for a person, by topic and reason",
    Counter "saga_ended_total": "Sagas that ended, by definition and status",
    Gauge "saga_floor_age_seconds": "Since the floor: history reaches back so far",
    Gauge "saga_history_ahead_days": "Days for which history has partitions: an alarm is due below one",
    Gauge "saga_history_partitions_left": "Partitions of history below the floor that could not be dropped yet",
    Counter "saga_inputs_total": "Inputs by kind, and what became of them",
    Gauge "saga_inputs_waiting": "Records of saga.inputs that are not consumed yet",
    Gauge "saga_live": "Sagas that have not ended, by status",
    Counter "saga_live_events_passed_over_total": "Events that a slow reader of /events did not get",
    Gauge "saga_oldest_live_age_seconds": "Since the oldest saga began that has not ended",
    Gauge "saga_outbox_rows": "Starts over HTTP that wait for Kafka",
    Gauge "saga_overaged": "Live sagas older than the retention, which hold the floor: an alarm is due above zero",
    Gauge "saga_participant_lag": "Commands that a participant has not consumed yet",
    Gauge "saga_partitions_owned": "Partitions of saga.inputs that are this process's",
    Histogram "saga_step_duration_seconds": "From a command to its answer, by definition, step and direction",
    Gauge "saga_timers_held": "Timers in memory",
    Counter "saga_timers_total": "Timers that fell due, by kind and verdict",
    Counter "saga_transitions_total": "Inputs that moved a saga",
};

/// Describes the metrics of this process, including the messaging library's.
pub fn describe() {
    metric::describe(metric::HELP);
    metric::describe(HELP);
}

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
