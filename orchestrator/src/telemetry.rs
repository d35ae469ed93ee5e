//! The orchestrator's own metrics, and its lines about sagas. Names and labels stand here and nowhere else.

mod help;

pub use help::describe;

use crate::engine::fold::Folded;
use metrics::{counter, gauge, histogram};
use saga_core::{
    instance::SagaStatus,
    message::{TimerDue, TimerKind, Verdict},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tracing::{debug, info, warn};

/// One committed batch.
pub fn batch(records: usize, took: Duration, folded: &Folded) {
    histogram!("saga_batch_duration_seconds").record(took.as_secs_f64());
    histogram!("saga_batch_inputs").record(records as f64);
    counter!("saga_transitions_total").increment(folded.transitions);
    for ((kind, fate), count) in &folded.fates {
        counter!("saga_inputs_total", "kind" => *kind, "result" => fate.as_str()).increment(*count);
    }
    let mut step_durations = BTreeMap::new();
    for time in &folded.step_times {
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
    for row in &folded.plan.ends {
        counter!(
            "saga_ended_total",
            "definition" => row.instance.definition.clone(),
            "status" => row.instance.status.as_str()
        )
        .increment(1);
    }
}

/// What a batch did to each saga, in the log: what needs a person loudly, the rest for whoever looks closely.
pub fn tell(folded: &Folded) {
    for row in &folded.plan.starts {
        debug!(
            saga.id = %row.instance.id,
            order.id = order_id(&row.instance.input),
            correlation.id = row.instance.trace.correlation_id,
            saga.definition = row.instance.definition,
            saga.business_key = row.instance.business_key,
            "a saga started"
        );
    }
    for row in &folded.plan.updates {
        match &row.instance.status {
            SagaStatus::Parked { step, reason, .. } => warn!(
                saga.id = %row.instance.id,
                order.id = order_id(&row.instance.input),
                correlation.id = row.instance.trace.correlation_id,
                saga.step = step,
                code = reason.code,
                message = reason.message,
                "a saga is parked: it needs a person"
            ),
            SagaStatus::Running
            | SagaStatus::Compensating
            | SagaStatus::Completed
            | SagaStatus::Compensated
            | SagaStatus::Abandoned { .. } => debug!(
                saga.id = %row.instance.id,
                order.id = order_id(&row.instance.input),
                correlation.id = row.instance.trace.correlation_id,
                saga.status = row.instance.status.as_str(),
                waiting = row.waiting.kind,
                participant = row.waiting.participant,
                "a saga moved"
            ),
        }
    }
    for row in &folded.plan.ends {
        debug!(
            saga.id = %row.instance.id,
            order.id = order_id(&row.instance.input),
            correlation.id = row.instance.trace.correlation_id,
            saga.status = row.instance.status.as_str(),
            duration_ms = (row.instance.changed_at - row.instance.started_at).num_milliseconds(),
            "a saga ended"
        );
    }
    for row in &folded.plan.actions {
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

/// Sagas about an order say so in their input: whoever searches the logs of all services for one order finds these
/// lines too. Other sagas have no such field.
fn order_id(input: &Value) -> Option<&str> {
    input.get("orderId").and_then(Value::as_str)
}

/// A record that could not be processed even alone.
pub fn rejected() {
    counter!("saga_inputs_total", "kind" => "unprocessable", "result" => "dead_lettered")
        .increment(1);
}

/// A timer that fell due.
pub fn timer(timer: &TimerDue) {
    let kind = match timer.kind {
        TimerKind::Timeout => "timeout",
        TimerKind::Backoff => "backoff",
        TimerKind::Deadline => "deadline",
    };
    let verdict = match timer.verdict {
        Verdict::Queued => "queued",
        Verdict::PickedUp => "picked_up",
        Verdict::Unanswered => "unanswered",
        Verdict::Gone => "gone",
        Verdict::Unknown => "unknown",
    };
    counter!("saga_timers_total", "kind" => kind, "verdict" => verdict).increment(1);
}

/// How many sagas are live, by status; statuses without one are zero.
pub fn live(counts: &[(String, i64)]) {
    for status in ["running", "compensating", "parked"] {
        let count = counts
            .iter()
            .find(|(name, _)| name == status)
            .map_or(0, |(_, count)| *count);
        gauge!("saga_live", "status" => status).set(count as f64);
    }
}

/// Home partitions that are this process's.
pub fn partitions_owned(count: usize) {
    gauge!("saga_partitions_owned").set(count as f64);
}

/// Timers in memory.
pub fn timers_held(held: usize, watched: usize) {
    gauge!("saga_timers_held").set(held as f64);
    gauge!("saga_commands_queued").set(watched as f64);
}

/// Records that a participant has not consumed yet, as seen from here.
pub fn participant_lag(topic: &str, group: &str, records: i64) {
    gauge!("saga_participant_lag", "topic" => topic.to_owned(), "group" => group.to_owned())
        .set(records as f64);
}

/// Records of `saga.inputs` that wait, and outbox rows.
pub fn backlog(inputs: i64, outbox: i64) {
    gauge!("saga_inputs_waiting").set(inputs as f64);
    gauge!("saga_outbox_rows").set(outbox as f64);
}

/// Days of history for which partitions are made already; an alarm is due when it falls below one.
pub fn partitions_ahead_days(days: f64) {
    gauge!("saga_history_ahead_days").set(days);
}

/// Milliseconds since the floor, and since the oldest live saga began.
pub fn ages(floor_ms: i64, oldest_live_ms: i64) {
    gauge!("saga_floor_age_seconds").set(floor_ms as f64 / 1_000.0);
    gauge!("saga_oldest_live_age_seconds").set(oldest_live_ms as f64 / 1_000.0);
}

/// Live sagas that are older than the retention and so hold the floor: an alarm is due above zero.
pub fn overaged(count: i64) {
    gauge!("saga_overaged").set(count as f64);
}

/// Partitions of history that lie below the floor and could not be dropped yet.
pub fn history_left(count: usize) {
    gauge!("saga_history_partitions_left").set(count as f64);
}

/// Dead letters that nobody has replayed or discarded; an alarm is due when there is any.
pub fn dead_letters_open(topic: &str, reason: &'static str, count: u64) {
    gauge!("saga_dead_letters_open", "topic" => topic.to_owned(), "reason" => reason)
        .set(count as f64);
}

/// `replayed` or `discarded`.
pub fn dead_letter_decided(decision: &'static str) {
    counter!("saga_dead_letters_decided_total", "decision" => decision).increment(1);
}

/// A record of the events' topic that is no event of ours.
pub fn live_event_passed_over() {
    counter!("saga_live_events_passed_over_total").increment(1);
}
