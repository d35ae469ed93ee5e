//! What a participant's answer does. Its content decides whether it still counts: a success or a saved failure is
//! final whichever attempt it answers; an `error`, and a failure that is not saved, only speak for their own attempt.

use super::{NotApplied, draft::Draft, forward::AttemptEnd, operator::refused};
use crate::{
    definition::StepKind,
    instance::{Cause, Delivery, LifecycleKind, StepState},
    message::{Direction, Fault, Outcome, Reply},
    mutant::{self, Mutant},
};

pub(super) fn apply(draft: &mut Draft<'_>, reply: &Reply) -> Result<(), NotApplied> {
    let (index, step) = draft
        .definition
        .step(&reply.step)
        .ok_or(NotApplied::Unknown)?;
    let possible = match reply.direction {
        // The pivot is resolved before the saga turns round, and any step before an operator completes or skips it.
        Direction::Forward | Direction::Resolve => step.action.is_some(),
        Direction::Compensation => step.compensation.is_some(),
    };
    if !possible {
        return Err(NotApplied::Unknown);
    }
    match (reply.outcome, reply.direction) {
        (Outcome::Success, Direction::Forward) => succeeded(draft, index, reply),
        (Outcome::Success, Direction::Compensation) => compensated(draft, index),
        (Outcome::Failure, Direction::Forward) if step.kind != StepKind::Retriable => {
            failed(draft, index, reply)
        }
        (Outcome::Failure, Direction::Forward | Direction::Compensation) => {
            contract_broken(draft, index, reply)
        }
        (Outcome::Error, _) => errored(draft, index, reply),
        (Outcome::NotDone, Direction::Forward | Direction::Resolve) => not_done(draft, index),
        // A resolve that found the action done or failed is answered with the action's own reply, and a
        // compensation is always possible.
        (Outcome::Success | Outcome::Failure, Direction::Resolve)
        | (Outcome::NotDone, Direction::Compensation) => Err(NotApplied::Unknown),
    }
}

fn succeeded(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    let part = draft.part(index, Direction::Forward, reply.attempt);
    match draft.state(index).clone() {
        StepState::Running(delivery) | StepState::Resolving(delivery) => {
            draft.set(index, StepState::Succeeded);
            // `null` is what an absent result reads as.
            draft.saga.steps[index].result =
                (!reply.payload.is_null()).then(|| reply.payload.clone().into());
            draft.record(LifecycleKind::StepSucceeded { part });
            draft.unpark(index, &delivery);
            draft.settled_otherwise(index);
            draft.pivot_may_be_done(index);
            Ok(())
        }
        StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. }
            if draft.saga.steps[index].unanswered =>
        {
            draft.saga.steps[index].unanswered = false;
            draft.record(LifecycleKind::LateReply { part });
            Ok(())
        }
        StepState::Waiting | StepState::Skipped => Err(NotApplied::Unknown),
        StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. } => Err(NotApplied::Stale),
    }
}

impl Draft<'_> {
    /// A step is done. If it is the pivot, the saga only goes forward from now on, whoever wanted it to turn round.
    pub fn pivot_may_be_done(&mut self, index: usize) {
        let step = self.step(index);
        if step.kind != StepKind::Pivot {
            return;
        }
        self.saga.resolve_cause = None;
        let message = format!("'{}' turned out to be done", step.name);
        self.decide_pending_turns(&refused("past_pivot", &message, &[]));
    }
}

fn failed(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    match draft.state(index) {
        StepState::Running(_) | StepState::Resolving(_) => {}
        StepState::Waiting | StepState::Skipped => return Err(NotApplied::Unknown),
        StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. } => return Err(NotApplied::Stale),
    }
    let fault = reply.fault();
    draft.record(LifecycleKind::StepFailed {
        part: draft.part(index, Direction::Forward, reply.attempt),
        fault: fault.clone(),
    });
    // A saved failure is never undone: what an operator wanted to make of the step can be made of it.
    if draft.settle_if_asked(index) {
        return Ok(());
    }
    let cause = Cause::of_step(&draft.step(index).name, &fault);
    draft.set(index, StepState::Failed { fault });
    draft.begin_compensation(cause);
    Ok(())
}

fn errored(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    let attempt = current_attempt(draft, index, reply)?;
    let end = AttemptEnd::Errored(reply.fault());
    draft.attempt_ended(index, reply.direction, attempt, end);
    Ok(())
}

/// Outside a resolve this is the refusal of a late action, which its compensation has overtaken.
fn not_done(draft: &mut Draft<'_>, index: usize) -> Result<(), NotApplied> {
    match draft.state(index) {
        StepState::Resolving(_) => {}
        StepState::Waiting | StepState::Skipped => return Err(NotApplied::Unknown),
        StepState::Running(_)
        | StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensating(_)
        | StepState::Compensated
        | StepState::CompensationSkipped { .. } => return Err(NotApplied::Stale),
    }
    let name = draft.step(index).name.clone();
    draft.record(LifecycleKind::StepNotDone { step: name.clone() });
    if draft.settle_if_asked(index) {
        return Ok(());
    }
    let cause = draft.saga.resolve_cause.clone().unwrap_or_else(|| {
        let fault = Fault::new("not_done", "the pivot was not done and never will be");
        Cause::of_step(&name, &fault)
    });
    draft.set(index, StepState::NotDone);
    draft.begin_compensation(cause);
    Ok(())
}

fn compensated(draft: &mut Draft<'_>, index: usize) -> Result<(), NotApplied> {
    match draft.state(index).clone() {
        StepState::Compensating(delivery) => {
            draft.set(index, StepState::Compensated);
            draft.record(LifecycleKind::StepCompensated {
                step: draft.step(index).name.clone(),
            });
            draft.unpark(index, &delivery);
            Ok(())
        }
        // It came too late to be waited for, and is done all the same.
        StepState::CompensationSkipped { .. } => {
            draft.set(index, StepState::Compensated);
            draft.record(LifecycleKind::StepCompensated {
                step: draft.step(index).name.clone(),
            });
            Ok(())
        }
        StepState::Compensated => Err(NotApplied::Stale),
        StepState::Waiting
        | StepState::Running(_)
        | StepState::Resolving(_)
        | StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Skipped => Err(NotApplied::Unknown),
    }
}

/// A retriable step or a compensation must not fail: a person has to look.
fn contract_broken(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    let attempt = current_attempt(draft, index, reply)?;
    let fault = reply.fault();
    let what = match reply.direction {
        Direction::Forward | Direction::Resolve => "a retriable step",
        Direction::Compensation => "a compensation",
    };
    let message = format!(
        "{what} must not fail, and {} answered {}: {}",
        draft.step(index).participant,
        fault.code,
        fault.message
    );
    draft.record(LifecycleKind::StepFailed {
        part: draft.part(index, reply.direction, attempt),
        fault,
    });
    draft.park(
        index,
        reply.direction,
        attempt,
        Fault::new("contract_broken", message),
    );
    Ok(())
}

/// The attempt of a reply that only counts while that very attempt is in flight.
fn current_attempt(draft: &Draft<'_>, index: usize, reply: &Reply) -> Result<u32, NotApplied> {
    match draft.state(index).delivery() {
        Some((direction, Delivery::InFlight { attempt, .. }))
            if direction == reply.direction
                && (*attempt == reply.attempt || mutant::on(Mutant::AcceptOldErrors)) =>
        {
            Ok(*attempt)
        }
        Some((
            _,
            Delivery::InFlight { .. } | Delivery::BackingOff { .. } | Delivery::UsedUp { .. },
        )) => Err(NotApplied::Stale),
        None => match draft.state(index) {
            StepState::Waiting | StepState::Skipped => Err(NotApplied::Unknown),
            StepState::Running(_)
            | StepState::Resolving(_)
            | StepState::Succeeded
            | StepState::Failed { .. }
            | StepState::NotDone
            | StepState::Unknown
            | StepState::Compensating(_)
            | StepState::Compensated
            | StepState::CompensationSkipped { .. } => Err(NotApplied::Stale),
        },
    }
}
