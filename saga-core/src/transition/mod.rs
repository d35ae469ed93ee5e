//! The decisions: [`transition`] is a total function from a saga and an input to the saga's next state and its effects.
//! The same function runs in production, in the property tests and in the simulation.

mod command;
mod compensate;
mod draft;
mod forward;
mod operator;
mod reply;
mod timer;
mod view;

pub use command::{CommandContext, OutgoingCommand, commands_in_flight};
pub use draft::{NotApplied, Transition};
pub use operator::{LegalAction, legal_actions};
pub use view::{timers, waiting, waiting_on};

use crate::{
    definition::SagaDefinition,
    ids::Timestamp,
    instance::{
        ActionVerdict, Cause, LifecycleEvent, LifecycleKind, Position, SagaInstance, SagaStatus,
        StepInstance, StepState,
    },
    message::{Input, StartSaga},
};
use draft::{Draft, after_ms};

/// An input at the instant it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaEvent {
    /// The database clock of the batch's transaction.
    pub at: Timestamp,
    /// The position of the input in the log.
    pub position: Position,
    pub input: Input,
}

/// Returns a new instance with its first commands.
pub fn start(
    definition: &SagaDefinition,
    start: &StartSaga,
    home_partition: i32,
    at: Timestamp,
    position: Position,
    context: &CommandContext,
) -> Transition {
    let saga = new_instance(definition, start, home_partition, at);
    let mut draft = Draft::new(definition, saga, at, context);
    draft.record(LifecycleKind::Started);
    draft.advance();
    draft.finish(position, None)
}

/// Recovers a saga that is to be cancelled and that the orchestrator does not know. The saga may never have begun, or
/// its state was lost. Therefore no step is begun, and the pivot is resolved. If the pivot was done, the saga goes
/// forward from its first step, and the participants' barrier answers commands that were done before. If the pivot was
/// not done, every step is compensated; the barrier makes that safe for steps that were never done.
pub fn recover(
    definition: &SagaDefinition,
    start: &StartSaga,
    home_partition: i32,
    at: Timestamp,
    position: Position,
    context: &CommandContext,
) -> Transition {
    let mut saga = new_instance(definition, start, home_partition, at);
    saga.recovered = true;
    // The sequence starts at the time, so that the events of the lost saga and of this one have different numbers.
    saga.sequence = at.timestamp_millis().max(0).cast_unsigned();
    let mut draft = Draft::new(definition, saga, at, context);
    draft.record(LifecycleKind::Recovered);
    let message = "the saga was unknown when it was to be cancelled";
    let cause = Cause::of_saga(operator::CANCELLED, message);
    match definition.pivot() {
        Some(pivot) => draft.start_resolve(pivot, cause),
        None => draft.begin_compensation(cause),
    }
    draft.advance();
    draft.finish(position, None)
}

fn new_instance(
    definition: &SagaDefinition,
    start: &StartSaga,
    home_partition: i32,
    at: Timestamp,
) -> SagaInstance {
    let steps = definition.steps.iter().map(|step| {
        StepInstance::new(match step.action {
            Some(_) => StepState::Waiting,
            // The starter has done the step.
            None => StepState::Succeeded,
        })
    });
    SagaInstance {
        id: start.saga_id,
        definition: definition.name.clone(),
        definition_version: definition.version,
        definition_hash: definition.hash.clone(),
        business_key: start.business_key.clone(),
        trace: start.trace.clone(),
        home_partition,
        started_at: at,
        deadline_at: after_ms(at, definition.deadline_ms),
        overdue: false,
        recovered: false,
        changed_at: at,
        status: SagaStatus::Running,
        cause: None,
        resolve_cause: None,
        pending_reversals: Vec::new(),
        input: start.input.clone().into(),
        steps: steps.collect(),
        sequence: 0,
        log: Vec::new(),
    }
}

/// Applies one input. `committed` is the highest position of the home partition whose offset is known to be
/// committed. Log entries up to that position may be dropped when the log is long.
pub fn transition(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    event: &SagaEvent,
    committed: Option<Position>,
    context: &CommandContext,
) -> Result<Transition, NotApplied> {
    if saga.status.is_ended() {
        return Err(NotApplied::Stale);
    }
    // The definition is not this saga's, so it cannot decide anything.
    if saga.steps.len() != definition.steps.len() {
        return Err(NotApplied::Unknown);
    }
    // The content of a timer does not show that the timer was applied before: the timer may fit the state that it has
    // led to. An action is exempt, because its id is unique and it must be answered.
    let has_id = matches!(event.input, Input::Operator(_));
    if !has_id && redelivery(saga, event.position).is_some() {
        return Err(NotApplied::Stale);
    }
    let mut draft = Draft::new(definition, saga.clone(), event.at, context);
    match &event.input {
        // The saga has started.
        Input::Start(_) => return Err(NotApplied::Stale),
        Input::Reply(reply) => reply::apply(&mut draft, reply)?,
        Input::Timer(timer) => timer::apply(&mut draft, timer)?,
        Input::Operator(action) => operator::apply(&mut draft, action),
    }
    if !draft.saga.status.is_ended() {
        draft.advance();
    }
    if draft.saga.status != saga.status || draft.saga.steps != saga.steps {
        draft.saga.changed_at = event.at;
    }
    Ok(draft.finish(event.position, committed))
}

/// Returns the verdict of an action that came after its saga ended. An ended saga does not change, so no log has the
/// verdict.
pub fn verdict_after_end(status: &SagaStatus) -> ActionVerdict {
    let message = format!("the saga has ended: {}", status.as_str());
    operator::refused("ended", &message, &[])
}

/// Returns the events of an input that is in the saga's log, so that a redelivery of the input sends them again.
pub fn redelivery(saga: &SagaInstance, position: Position) -> Option<&[LifecycleEvent]> {
    saga.log
        .iter()
        .find(|entry| entry.position == position)
        .map(|entry| entry.events.as_slice())
}

#[cfg(test)]
mod tests;
