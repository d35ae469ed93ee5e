//! What falls due. A timer stands in the log behind every reply that was there first, so by the time it is applied
//! its attempt is truly unanswered, or the state no longer matches and the timer is stale.

use super::{NotApplied, after_ms, draft::Draft, draft::deliver, draft::spec, forward::AttemptEnd};
use crate::{
    definition::SagaDefinition,
    ids::Timestamp,
    instance::{Cause, Delivery, LifecycleKind, Phase, PickUp, SagaInstance, StepState},
    message::{DuePart, TimerDue, TimerKind, Verdict},
};

pub(super) fn apply(draft: &mut Draft<'_>, timer: &TimerDue) -> Result<(), NotApplied> {
    match (timer.kind, &timer.part) {
        (TimerKind::Deadline, None) => deadline(draft),
        (TimerKind::Timeout, Some(part)) => timeout(draft, part, timer.verdict),
        (TimerKind::Backoff, Some(part)) => backoff(draft, part),
        (TimerKind::Deadline, Some(_)) | (TimerKind::Timeout | TimerKind::Backoff, None) => {
            Err(NotApplied::Unknown)
        }
    }
}

/// The delivery that a timer is about, if it is still the current attempt.
fn current(draft: &Draft<'_>, part: &DuePart) -> Result<(usize, Delivery), NotApplied> {
    let (index, _) = draft
        .definition
        .step(&part.step)
        .ok_or(NotApplied::Unknown)?;
    match draft.state(index).delivery() {
        Some((direction, delivery))
            if direction == part.direction && delivery.attempt() == part.attempt =>
        {
            Ok((index, delivery.clone()))
        }
        Some(_) | None => Err(NotApplied::Stale),
    }
}

fn backoff(draft: &mut Draft<'_>, part: &DuePart) -> Result<(), NotApplied> {
    match current(draft, part)? {
        (index, Delivery::BackingOff { attempt, .. }) => {
            draft.send(index, part.direction, attempt + 1);
            Ok(())
        }
        (_, Delivery::InFlight { .. } | Delivery::UsedUp { .. }) => Err(NotApplied::Stale),
    }
}

/// A command in flight as its timer finds it.
struct Overdue<'a> {
    index: usize,
    part: &'a DuePart,
    sent_at: Timestamp,
    due_at: Timestamp,
    timeout_ms: u64,
}

fn timeout(draft: &mut Draft<'_>, part: &DuePart, verdict: Verdict) -> Result<(), NotApplied> {
    let (index, delivery) = current(draft, part)?;
    let (sent_at, due_at, pick_up) = match delivery {
        Delivery::InFlight {
            sent_at,
            due_at,
            pick_up,
            ..
        } => (sent_at, due_at, pick_up),
        Delivery::BackingOff { .. } | Delivery::UsedUp { .. } => return Err(NotApplied::Stale),
    };
    let overdue = Overdue {
        index,
        part,
        sent_at,
        due_at,
        timeout_ms: spec(draft.step(index), part.direction).map_or(0, |spec| spec.timeout_ms),
    };
    match (verdict, pick_up) {
        (Verdict::Gone, PickUp::Unseen | PickUp::Queued { .. }) => send_again(draft, &overdue),
        (Verdict::Queued | Verdict::Unknown, PickUp::Unseen) => queued(draft, &overdue),
        (Verdict::PickedUp, PickUp::Unseen | PickUp::Queued { .. }) => picked_up(draft, &overdue),
        (Verdict::Unanswered, PickUp::Seen { .. }) => {
            draft.attempt_ended(index, part.direction, part.attempt, AttemptEnd::TimedOut);
        }
        // Said already, or by somebody who knew less than stands here: once consumed is consumed.
        (Verdict::Queued | Verdict::Unknown, PickUp::Queued { .. })
        | (
            Verdict::Gone | Verdict::Queued | Verdict::Unknown | Verdict::PickedUp,
            PickUp::Seen { .. },
        )
        | (Verdict::Unanswered, PickUp::Unseen | PickUp::Queued { .. }) => {
            return Err(NotApplied::Stale);
        }
    }
    Ok(())
}

fn queued(draft: &mut Draft<'_>, overdue: &Overdue<'_>) {
    let delivery = Delivery::InFlight {
        attempt: overdue.part.attempt,
        sent_at: overdue.sent_at,
        due_at: overdue.due_at,
        pick_up: PickUp::Queued {
            since: overdue.sent_at,
        },
    };
    draft.set(overdue.index, deliver(overdue.part.direction, delivery));
    draft.record(LifecycleKind::CommandQueued {
        part: overdue.part.clone(),
    });
}

/// The attempt's timeout runs from now on.
fn picked_up(draft: &mut Draft<'_>, overdue: &Overdue<'_>) {
    let delivery = Delivery::InFlight {
        attempt: overdue.part.attempt,
        sent_at: overdue.sent_at,
        due_at: after_ms(draft.at, overdue.timeout_ms),
        pick_up: PickUp::Seen { at: draft.at },
    };
    draft.set(overdue.index, deliver(overdue.part.direction, delivery));
    draft.record(LifecycleKind::CommandPickedUp {
        part: overdue.part.clone(),
    });
}

/// The record is gone and nobody consumed it: the same attempt goes out once more.
fn send_again(draft: &mut Draft<'_>, overdue: &Overdue<'_>) {
    draft.send(overdue.index, overdue.part.direction, overdue.part.attempt);
    draft.sent_again.push(overdue.index);
}

fn deadline(draft: &mut Draft<'_>) -> Result<(), NotApplied> {
    if draft.saga.overdue {
        return Err(NotApplied::Stale);
    }
    draft.saga.overdue = true;
    let message = format!(
        "not done by {}",
        draft
            .saga
            .deadline_at
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    );
    let cause = Cause::of_saga("deadline", message);
    match turning(draft.definition, &draft.saga) {
        Turning::Back => draft.begin_compensation(cause),
        Turning::Ask(pivot) => draft.start_resolve(pivot, cause),
        Turning::Asking | Turning::No => draft.record(LifecycleKind::DeadlinePassed),
    }
    Ok(())
}

/// What it takes to turn a saga round as it stands.
pub(super) enum Turning {
    /// Nothing decisive was sent: it can go back at once.
    Back,
    /// The pivot is under way: only its outcome can tell.
    Ask(usize),
    /// The outcome is being asked for already.
    Asking,
    /// The pivot is done, or the saga is on its way back.
    No,
}

pub(super) fn turning(definition: &SagaDefinition, saga: &SagaInstance) -> Turning {
    match saga.status.phase() {
        Phase::Compensating => return Turning::No,
        Phase::Running => {}
    }
    let Some(pivot) = definition.pivot() else {
        return Turning::Back;
    };
    match saga.steps[pivot].state {
        StepState::Waiting => Turning::Back,
        StepState::Running(_) => Turning::Ask(pivot),
        StepState::Resolving(_) => Turning::Asking,
        StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. }
        | StepState::Skipped => Turning::No,
    }
}
