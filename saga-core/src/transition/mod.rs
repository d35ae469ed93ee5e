//! The decisions: one total function from a saga and an event to the saga's next state and what follows from it.
//! The same function runs in production, in the property tests and in the simulation.

mod command;
mod compensate;
mod draft;
mod forward;
mod operator;
mod reply;
mod timer;
mod view;

pub use command::commands_in_flight;
pub use operator::{LegalAction, legal_actions};
pub use view::{timers, waiting, waiting_on};

use crate::{
    definition::SagaDefinition,
    ids::Timestamp,
    instance::{
        ActionVerdict, LifecycleEvent, LifecycleKind, LogEntry, Position, SagaInstance, SagaStatus,
        StepInstance, StepState, Unchanging,
    },
    message::{Command, OperatorAction, Reply, StartSaga, TimerDue},
};
use chrono::TimeDelta;
use command::in_flight;
use draft::Draft;

/// An input at the instant it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaEvent {
    /// Database clock of the batch's transaction.
    pub at: Timestamp,
    /// Where the input stands in the log.
    pub position: Position,
    pub body: EventBody,
}

#[derive(Clone, Debug, PartialEq)]
pub enum EventBody {
    CommandReplied(Reply),
    TimerFired(TimerDue),
    ActionAsked(OperatorAction),
}

/// A command to send, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingCommand {
    pub participant: String,
    pub command: Command,
}

/// What an applied input does.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub saga: SagaInstance,
    /// The last entry of `saga.log`, with the events of this input.
    pub entry: Unchanging<LogEntry>,
    /// Commands that are in flight now and were not before.
    pub commands: Vec<OutgoingCommand>,
    /// Of an operator's action.
    pub verdict: Option<ActionVerdict>,
}

/// Why an input did not apply. Not an error: replies are duplicated and come late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// Its step has moved on, the saga has ended, or it is a [`redelivery`].
    Stale,
    /// No step of that name, or a reply no command could have: counted and logged.
    Unknown,
}

/// What the caller knows and a command must carry.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// `saga.inputs`.
    pub reply_topic: String,
    pub floor: Option<Timestamp>,
}

/// Makes a new instance and its first commands.
pub fn start(
    definition: &SagaDefinition,
    start: &StartSaga,
    home_partition: i32,
    at: Timestamp,
    position: Position,
    outbound: &Outbound,
) -> Transition {
    let steps = definition.steps.iter().map(|step| {
        StepInstance::new(match step.action {
            Some(_) => StepState::Waiting,
            // Done by the starter.
            None => StepState::Succeeded,
        })
    });
    let saga = SagaInstance {
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
        changed_at: at,
        status: SagaStatus::Running,
        cause: None,
        resolve_cause: None,
        pending_turns: Vec::new(),
        input: start.input.clone().into(),
        steps: steps.collect(),
        sequence: 0,
        log: Vec::new(),
    };
    let mut draft = Draft::new(definition, saga, at);
    draft.record(LifecycleKind::Started);
    draft.advance();
    draft.finish(&[], position, None, outbound)
}

/// Applies one input. `committed` is the highest position of the home partition whose offset is known to be
/// committed: log entries up to it may be dropped when the log is long.
pub fn transition(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    event: &SagaEvent,
    committed: Option<Position>,
    outbound: &Outbound,
) -> Result<Transition, NotApplied> {
    if saga.status.is_ended() {
        return Err(NotApplied::Stale);
    }
    // Not this saga's definition: nothing could be decided by it.
    if saga.steps.len() != definition.steps.len() {
        return Err(NotApplied::Unknown);
    }
    // Content alone does not tell: a timer that was applied may fit the state that it has led to. An action's id tells it
    // from all others, and it must be answered, so the place that an action of a topic made anew stands at is its own.
    let has_id = matches!(event.body, EventBody::ActionAsked(_));
    if !has_id && redelivery(saga, event.position).is_some() {
        return Err(NotApplied::Stale);
    }
    let before = in_flight(saga);
    let mut draft = Draft::new(definition, saga.clone(), event.at);
    match &event.body {
        EventBody::CommandReplied(reply) => reply::apply(&mut draft, reply)?,
        EventBody::TimerFired(timer) => timer::apply(&mut draft, timer)?,
        EventBody::ActionAsked(action) => operator::apply(&mut draft, action),
    }
    if !draft.saga.status.is_ended() {
        draft.advance();
    }
    if draft.saga.status != saga.status || draft.saga.steps != saga.steps {
        draft.saga.changed_at = event.at;
    }
    Ok(draft.finish(&before, event.position, committed, outbound))
}

/// The verdict of an action that came after its saga ended. An ended saga does not change, so this stands in no log.
pub fn verdict_after_end(status: &SagaStatus) -> ActionVerdict {
    let message = format!("the saga has ended: {}", status.as_str());
    operator::refused("ended", &message, &[])
}

/// The events of an input that stands in the saga's log, so that a redelivery sends them again.
pub fn redelivery(saga: &SagaInstance, position: Position) -> Option<&[LifecycleEvent]> {
    saga.log
        .iter()
        .find(|entry| entry.position == position)
        .map(|entry| entry.events.as_slice())
}

/// An instant `milliseconds` later; the end of time stays where it is.
fn after_ms(at: Timestamp, milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds)
        .ok()
        .and_then(TimeDelta::try_milliseconds)
        .and_then(|delta| at.checked_add_signed(delta))
        .unwrap_or(Timestamp::MAX_UTC)
}

#[cfg(test)]
mod tests;
