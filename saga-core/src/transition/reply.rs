//! Applies a participant's reply. The content decides whether the reply still counts: a success or a saved failure is
//! final, whichever attempt it answers; an `error`, and a failure that is not saved, only count for their own attempt.

use super::{
    command::command_name,
    draft::{Draft, NotApplied},
    forward::AttemptEnd,
    operator::refused,
};
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
        // The pivot is resolved before the saga starts compensating; any step is resolved before an operator completes
        // or skips it.
        Direction::Forward | Direction::Resolve => step.action.is_some(),
        Direction::Compensation => step.compensation.is_some(),
    };
    if !possible {
        return Err(NotApplied::Unknown);
    }
    match (reply.outcome, reply.direction) {
        (Outcome::Success, Direction::Forward) => succeeded(draft, index, reply),
        (Outcome::Success, Direction::Compensation) => compensated(draft, index),
        (Outcome::Failure, Direction::Forward)
            if step.kind != StepKind::Retriable
                && (!draft.is_past_pivot() || draft.saga.steps[index].settling.is_some()) =>
        {
            failed(draft, index, reply)
        }
        (Outcome::Failure, Direction::Forward | Direction::Compensation) => {
            contract_broken(draft, index, reply)
        }
        (Outcome::Error, _) => errored(draft, index, reply),
        (Outcome::NotDone, Direction::Forward | Direction::Resolve) => not_done(draft, index),
        // A resolve that finds the action done or failed is answered with the action's own reply, whose direction is
        // `forward`. A compensation can always be made, so `not_done` does not answer one.
        (Outcome::Success | Outcome::Failure, Direction::Resolve)
        | (Outcome::NotDone, Direction::Compensation) => contract_broken(draft, index, reply),
    }
}

fn succeeded(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    let part = draft.part(index, Direction::Forward, reply.attempt);
    let state = draft.state(index).clone();
    if let StepState::Running(delivery) | StepState::Resolving(delivery) = state {
        draft.set(index, StepState::Succeeded);
        // An absent result is read as `null`.
        draft.saga.steps[index].result =
            (!reply.payload.is_null()).then(|| reply.payload.clone().into());
        draft.record(LifecycleKind::StepSucceeded { part });
        draft.unpark(index, &delivery);
        draft.settled_otherwise(index);
        draft.pivot_may_be_done(index);
        return Ok(());
    }
    // The step was given up as unknown, or an operator said that it was not done.
    if std::mem::take(&mut draft.saga.steps[index].unanswered) {
        draft.record(LifecycleKind::LateReply { part });
        return Ok(());
    }
    Err(not_applied(&state))
}

/// Says why a reply does not apply to a step in this state.
fn not_applied(state: &StepState) -> NotApplied {
    if state.was_started() {
        NotApplied::Stale
    } else {
        NotApplied::Unknown
    }
}

impl Draft<'_> {
    /// Handles a step that is done. If it is the pivot, the saga only goes forward from now on: pending cancels are
    /// refused.
    pub fn pivot_may_be_done(&mut self, index: usize) {
        let step = self.step(index);
        if step.kind != StepKind::Pivot {
            return;
        }
        self.saga.resolve_cause = None;
        let message = format!("'{}' turned out to be done", step.name);
        self.decide_pending_reversals(&refused("past_pivot", &message, &[]));
    }
}

fn failed(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    let state = draft.state(index);
    if !matches!(state, StepState::Running(_) | StepState::Resolving(_)) {
        return Err(not_applied(state));
    }
    let fault = reply.fault();
    draft.record(LifecycleKind::StepFailed {
        part: draft.part(index, Direction::Forward, reply.attempt),
        fault: fault.clone(),
    });
    draft.unpark_now(index);
    // A saved failure means that the step had no effect, so the operator's pending complete or skip can be carried out.
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

/// Applies a `not_done`. Outside of a resolve it means that a compensation overtook the action, so the barrier refused
/// it.
fn not_done(draft: &mut Draft<'_>, index: usize) -> Result<(), NotApplied> {
    let state = draft.state(index);
    if let StepState::Running(delivery) = state
        && draft.is_past_pivot()
        && delivery.used_up().is_none()
    {
        let attempt = delivery.attempt();
        never_done(draft, index, attempt);
        return Ok(());
    }
    if !matches!(state, StepState::Resolving(_)) {
        return Err(not_applied(state));
    }
    let name = draft.step(index).name.clone();
    draft.record(LifecycleKind::StepNotDone { step: name.clone() });
    draft.unpark_now(index);
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

/// Parks a recovered saga on a step that its participant refuses for ever. A recovered saga sends its steps once more.
/// If an operator skipped the step, or it was compensated, before the state was lost, the barrier refuses the step. The
/// saga cannot go back, because its pivot is done.
fn never_done(draft: &mut Draft<'_>, index: usize, attempt: u32) {
    let step = draft.step(index);
    let command = command_name(step, Direction::Forward);
    let message = format!(
        "{} answered {command} with not_done: it was not done and never will be",
        step.participant
    );
    let fault = Fault::new("not_done", message);
    draft.park(index, Direction::Forward, attempt, fault);
}

fn compensated(draft: &mut Draft<'_>, index: usize) -> Result<(), NotApplied> {
    let delivery = match draft.state(index) {
        StepState::Compensating(delivery) => Some(delivery.clone()),
        // The reply came after an operator skipped the compensation, and the compensation is done all the same.
        StepState::CompensationSkipped { .. } => None,
        StepState::Compensated => return Err(NotApplied::Stale),
        StepState::Waiting
        | StepState::Running(_)
        | StepState::Resolving(_)
        | StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Skipped => return Err(NotApplied::Unknown),
    };
    draft.set(index, StepState::Compensated);
    draft.record(LifecycleKind::StepCompensated {
        step: draft.step(index).name.clone(),
    });
    if let Some(delivery) = delivery {
        draft.unpark(index, &delivery);
    }
    Ok(())
}

/// Parks the saga for a reply that the contract does not allow: a retriable step or a compensation must not fail, and a
/// resolve has its own answers.
fn contract_broken(draft: &mut Draft<'_>, index: usize, reply: &Reply) -> Result<(), NotApplied> {
    let attempt = current_attempt(draft, index, reply)?;
    let fault = reply.fault();
    let rule = match (reply.direction, draft.step(index).kind) {
        (Direction::Compensation, _) => "a compensation must not fail",
        (Direction::Resolve, _) => {
            "a resolve is answered by not_done, or by what the action answered"
        }
        (Direction::Forward, StepKind::Retriable) => "a retriable step must not fail",
        (Direction::Forward, StepKind::Compensatable | StepKind::Pivot) => {
            "a step of a saga whose pivot is done must not fail"
        }
    };
    let message = format!(
        "{rule}, and {} answered {}: {}",
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

/// Returns the attempt of a reply that only counts while its own attempt is in flight.
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
        None => Err(not_applied(draft.state(index))),
    }
}
