//! Applies timers. A timer comes behind every reply that was in the log before it. Therefore its attempt is truly
//! unanswered when the timer is applied, or the state no longer matches and the timer is stale.

use super::{
    command::spec,
    draft::{Draft, NotApplied, after_ms, deliver},
    forward::AttemptEnd,
};
use crate::{
    definition::SagaDefinition,
    ids::Timestamp,
    instance::{Cause, Delivery, LifecycleKind, Phase, PickUp, SagaInstance, StepState},
    message::{CommandRef, PickUpStatus, TimerDue, TimerKind},
};

pub(super) fn apply(draft: &mut Draft<'_>, timer: &TimerDue) -> Result<(), NotApplied> {
    match (timer.kind, &timer.part) {
        (TimerKind::Deadline, None) => deadline(draft),
        (TimerKind::Timeout, Some(part)) => timeout(draft, part, timer),
        (TimerKind::Backoff, Some(part)) => backoff(draft, part),
        (TimerKind::Deadline, Some(_)) | (TimerKind::Timeout | TimerKind::Backoff, None) => {
            Err(NotApplied::Unknown)
        }
    }
}

/// Returns the delivery that a timer is about, if its attempt is still the current one.
fn current(draft: &Draft<'_>, part: &CommandRef) -> Result<(usize, Delivery), NotApplied> {
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

fn backoff(draft: &mut Draft<'_>, part: &CommandRef) -> Result<(), NotApplied> {
    match current(draft, part)? {
        (index, Delivery::BackingOff { attempt, .. }) => {
            draft.send(index, part.direction, attempt + 1);
            Ok(())
        }
        (_, Delivery::InFlight { .. } | Delivery::UsedUp { .. }) => Err(NotApplied::Stale),
    }
}

/// A command in flight whose timer fell due.
struct Overdue<'a> {
    index: usize,
    part: &'a CommandRef,
    sent_at: Timestamp,
    due_at: Timestamp,
    timeout_ms: u64,
}

fn timeout(draft: &mut Draft<'_>, part: &CommandRef, timer: &TimerDue) -> Result<(), NotApplied> {
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
    // The pick-up is never before the sending, even if another process's clock says so.
    let picked_up_at = timer.picked_up_at.map(|at| at.max(sent_at));
    match (timer.verdict, pick_up, picked_up_at) {
        // The record is gone and was not consumed, so the same attempt is sent again.
        (PickUpStatus::Gone, PickUp::Unseen | PickUp::Queued { .. }, _) => {
            draft.send(index, part.direction, part.attempt);
        }
        (PickUpStatus::Queued | PickUpStatus::Unknown, PickUp::Unseen, _) => {
            queued(draft, &overdue);
        }
        (PickUpStatus::PickedUp, PickUp::Unseen | PickUp::Queued { .. }, seen) => {
            picked_up(draft, &overdue, seen.unwrap_or(draft.at));
        }
        (PickUpStatus::Unanswered, PickUp::Seen { .. }, _) => timed_out(draft, &overdue, due_at),
        // The pick-up was seen in time, and the whole timeout has passed since.
        (PickUpStatus::Unanswered, PickUp::Unseen | PickUp::Queued { .. }, Some(seen)) => {
            let due_at = picked_up(draft, &overdue, seen);
            timed_out(draft, &overdue, due_at);
        }
        // The state has recorded the same already, or it knows more than the timer: a consumed command stays consumed.
        (PickUpStatus::Queued | PickUpStatus::Unknown, PickUp::Queued { .. }, _)
        | (
            PickUpStatus::Gone
            | PickUpStatus::Queued
            | PickUpStatus::Unknown
            | PickUpStatus::PickedUp,
            PickUp::Seen { .. },
            _,
        )
        | (PickUpStatus::Unanswered, PickUp::Unseen | PickUp::Queued { .. }, None) => {
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

/// Records that the command was consumed at `seen`, and returns when the attempt's timeout passes.
fn picked_up(draft: &mut Draft<'_>, overdue: &Overdue<'_>, seen: Timestamp) -> Timestamp {
    let due_at = after_ms(seen, overdue.timeout_ms);
    let delivery = Delivery::InFlight {
        attempt: overdue.part.attempt,
        sent_at: overdue.sent_at,
        due_at,
        pick_up: PickUp::Seen { at: seen },
    };
    draft.set(overdue.index, deliver(overdue.part.direction, delivery));
    draft.record(LifecycleKind::CommandPickedUp {
        part: overdue.part.clone(),
    });
    due_at
}

fn timed_out(draft: &mut Draft<'_>, overdue: &Overdue<'_>, due_at: Timestamp) {
    let part = overdue.part;
    let end = AttemptEnd::TimedOut { due_at };
    draft.attempt_ended(overdue.index, part.direction, part.attempt, end);
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
    match compensation_start(draft.definition, &draft.saga) {
        CompensationStart::Now => draft.begin_compensation(cause),
        CompensationStart::Ask(pivot) => draft.start_resolve(pivot, cause),
        CompensationStart::Asking | CompensationStart::AskAgain(_) | CompensationStart::No => {
            draft.record(LifecycleKind::DeadlinePassed);
        }
    }
    Ok(())
}

/// Says how a saga can start compensating from its current state.
pub(super) enum CompensationStart {
    /// At once: the pivot was not sent.
    Now,
    /// After resolving the pivot, which is in flight.
    Ask(usize),
    /// After the answer to a resolve that is in flight.
    Asking,
    /// After resolving the pivot again: the attempts are used up, and the saga is parked on the pivot.
    AskAgain(usize),
    /// Not at all: the pivot is done, or the saga compensates already.
    No,
}

pub(super) fn compensation_start(
    definition: &SagaDefinition,
    saga: &SagaInstance,
) -> CompensationStart {
    match saga.status.phase() {
        Phase::Compensating => return CompensationStart::No,
        Phase::Running => {}
    }
    let Some(pivot) = definition.pivot() else {
        return CompensationStart::Now;
    };
    match saga.steps[pivot].state {
        StepState::Waiting => CompensationStart::Now,
        StepState::Running(_) => CompensationStart::Ask(pivot),
        StepState::Resolving(Delivery::UsedUp { .. }) => CompensationStart::AskAgain(pivot),
        StepState::Resolving(Delivery::InFlight { .. } | Delivery::BackingOff { .. }) => {
            CompensationStart::Asking
        }
        StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. }
        | StepState::Skipped => CompensationStart::No,
    }
}
