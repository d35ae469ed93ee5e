//! The orchestrator's own metrics, and its log lines about sagas. Metric names and labels are defined only here.

mod help;

pub use help::describe;

use crate::engine::outcome::BatchOutcome;
use metrics::{counter, gauge, histogram};
use saga_core::message::{PickUpStatus, TimerDue, TimerKind};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tracing::{debug, info, warn};

/// Records a committed batch.
pub fn batch(records: usize, took: Duration, outcome: &BatchOutcome) {
    histogram!("saga_batch_duration_seconds").record(took.as_secs_f64());
    histogram!("saga_batch_inputs").record(records as f64);
    counter!("saga_transitions_total").increment(outcome.transitions);
    for ((kind, disposition), count) in &outcome.dispositions {
        counter!("saga_inputs_total", "kind" => *kind, "result" => disposition.as_str())
            .increment(*count);
    }
    let mut step_durations = BTreeMap::new();
    for time in &outcome.step_times {
        let labels = (&time.definition, &time.step, time.direction);
        let durations = step_durations.entry(labels).or_insert_with(|| {
            histogram!(
                "saga_step_duration_seconds",
                "definition" => time.definition.clone(),
                "step" => time.step.clone(),
                "direction" => time.direction.as_str()
            )
        });
        durations.record(time.milliseconds.max(0) as f64 / 1_000.0);
    }
    for row in &outcome.plan.ends {
        counter!(
            "saga_ended_total",
            "definition" => row.instance.definition.clone(),
            "status" => row.instance.status.as_str()
        )
        .increment(1);
    }
}

/// Logs each saga's transitions in a batch: a parked saga as a warning, an operator's action at info, the rest at
/// debug.
pub fn log_transitions(outcome: &BatchOutcome) {
    for row in &outcome.plan.starts {
        debug!(
            saga.id = %row.instance.id,
            order.id = order_id(&row.instance.input),
            correlation.id = row.instance.trace.correlation_id,
            saga.definition = row.instance.definition,
            saga.business_key = row.instance.business_key,
            "a saga started"
        );
    }
    for row in &outcome.plan.updates {
        if let Some((step, reason)) = row.instance.status.parked() {
            warn!(
                saga.id = %row.instance.id,
                order.id = order_id(&row.instance.input),
                correlation.id = row.instance.trace.correlation_id,
                saga.step = step,
                code = reason.code,
                message = reason.message,
                "a saga is parked: it needs a person"
            );
        } else {
            debug!(
                saga.id = %row.instance.id,
                order.id = order_id(&row.instance.input),
                correlation.id = row.instance.trace.correlation_id,
                saga.status = row.instance.status.as_str(),
                waiting = row.waiting.kind,
                participant = row.waiting.participant,
                "a saga advanced"
            );
        }
    }
    for row in &outcome.plan.ends {
        debug!(
            saga.id = %row.instance.id,
            order.id = order_id(&row.instance.input),
            correlation.id = row.instance.trace.correlation_id,
            saga.status = row.instance.status.as_str(),
            duration_ms = (row.instance.changed_at - row.instance.started_at).num_milliseconds(),
            "a saga ended"
        );
    }
    for row in &outcome.plan.actions {
        info!(
            saga.id = %row.action.saga_id,
            correlation.id = row.action.trace.correlation_id,
            action.id = %row.action.action_id,
            actor = row.action.actor,
            verdict = ?row.verdict,
            "an action is decided"
        );
    }
}

/// Returns the `orderId` of a saga's input. A search for one order in the logs of all services then finds the saga's
/// lines, too. Sagas that are not about an order have no such field.
fn order_id(input: &Value) -> Option<&str> {
    input.get("orderId").and_then(Value::as_str)
}

/// Counts a record that could not be processed even in a batch of its own.
pub fn rejected() {
    counter!("saga_inputs_total", "kind" => "unprocessable", "result" => "dead_lettered")
        .increment(1);
}

/// Counts a timer that fell due.
pub fn timer(timer: &TimerDue) {
    let kind = match timer.kind {
        TimerKind::Timeout => "timeout",
        TimerKind::Backoff => "backoff",
        TimerKind::Deadline => "deadline",
    };
    let verdict = match timer.verdict {
        PickUpStatus::Queued => "queued",
        PickUpStatus::PickedUp => "picked_up",
        PickUpStatus::Unanswered => "unanswered",
        PickUpStatus::Gone => "gone",
        PickUpStatus::Unknown => "unknown",
    };
    counter!("saga_timers_total", "kind" => kind, "verdict" => verdict).increment(1);
}

/// Sets the numbers of live sagas by status; a status that is missing in `counts` is set to zero.
pub fn live(counts: &[(String, i64)]) {
    for status in ["running", "compensating", "parked"] {
        let count = counts
            .iter()
            .find(|(name, _)| name == status)
            .map_or(0, |(_, count)| *count);
        gauge!("saga_live", "status" => status).set(count as f64);
    }
}

/// Sets the number of home partitions that are assigned to this process.
pub fn partitions_owned(count: usize) {
    gauge!("saga_partitions_owned").set(count as f64);
}

/// Sets the numbers of timers and of watched queued commands that are in memory.
pub fn timers_held(held: usize, watched: usize) {
    gauge!("saga_timers_held").set(held as f64);
    gauge!("saga_commands_queued").set(watched as f64);
}

/// Sets the number of records that a participant has not consumed yet, by the offsets that this process reads.
pub fn participant_lag(topic: &str, group: &str, records: i64) {
    gauge!("saga_participant_lag", "topic" => topic.to_owned(), "group" => group.to_owned())
        .set(records as f64);
}

/// Sets the number of records of `saga.inputs` that are not consumed yet, and the number of outbox rows.
pub fn backlog(inputs: i64, outbox: i64) {
    gauge!("saga_inputs_waiting").set(inputs as f64);
    gauge!("saga_outbox_rows").set(outbox as f64);
}

/// Sets the number of days for which history partitions exist already. Alert when it falls below one.
pub fn partitions_ahead_days(days: f64) {
    gauge!("saga_history_ahead_days").set(days);
}

/// Sets the ages, in milliseconds, of the floor and of the oldest live saga.
pub fn ages(floor_ms: i64, oldest_live_ms: i64) {
    gauge!("saga_floor_age_seconds").set(floor_ms as f64 / 1_000.0);
    gauge!("saga_oldest_live_age_seconds").set(oldest_live_ms as f64 / 1_000.0);
}

/// Sets the number of live sagas that are older than the retention and so hold the floor back. Alert above zero.
pub fn overaged(count: i64) {
    gauge!("saga_overaged").set(count as f64);
}

/// Sets the number of history partitions that lie below the floor and could not be dropped yet.
pub fn history_left(count: usize) {
    gauge!("saga_history_partitions_left").set(count as f64);
}

/// Sets the number of dead letters that are neither replayed nor discarded. Alert when there is any.
pub fn dead_letters_open(topic: &str, reason: &'static str, count: u64) {
    gauge!("saga_dead_letters_open", "topic" => topic.to_owned(), "reason" => reason)
        .set(count as f64);
}

/// Counts a decision about a dead letter; `decision` is `replayed` or `discarded`.
pub fn dead_letter_decided(decision: &'static str) {
    counter!("saga_dead_letters_decided_total", "decision" => decision).increment(1);
}

/// Counts a record of the events topic that is not an event of the orchestrator.
pub fn live_event_passed_over() {
    counter!("saga_live_events_passed_over_total").increment(1);
}
