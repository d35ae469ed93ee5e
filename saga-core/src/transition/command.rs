//! Builds the commands of a saga from its state alone: commands that are sent again have the same ids and payloads.

use crate::{
    definition::{CommandSpec, InputMapping, SagaDefinition, Sources, Step, StepKind},
    ids::Timestamp,
    instance::{Delivery, SagaInstance},
    message::{Command, Direction, OutgoingRecord, PayloadLimit, ReplyTo, record},
    mutant::{self, Mutant},
};
use serde_json::{Value, json};

/// Values that every command carries or must respect, and that only the caller knows.
#[derive(Clone, Debug)]
pub struct CommandContext {
    /// The topic `saga.inputs`.
    pub reply_topic: String,
    pub floor: Option<Timestamp>,
    /// A command whose payload is larger is not sent, because that would always fail. Its saga is parked instead.
    pub payload_limit: PayloadLimit,
}

/// A command to send, and the participant to send it to.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingCommand {
    pub participant: String,
    pub command: Command,
    /// The payload's JSON, which was written to measure it.
    payload: Vec<u8>,
}

impl OutgoingCommand {
    /// Returns the record that sends the command to `topic`.
    pub fn encode(self, topic: &str, source: &str, at: Timestamp) -> OutgoingRecord {
        self.command.encode_with(self.payload, topic, source, at)
    }
}

/// A command was not built, because its payload has more bytes than the broker accepts.
pub(super) struct TooLarge {
    pub payload_bytes: usize,
}

/// Identifies a command in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlightId {
    pub index: usize,
    pub direction: Direction,
    pub attempt: u32,
}

/// Returns the commands in flight as they were sent: the ids and payloads are the same. A command that was sent before
/// the payload limit was lowered may not fit any more, and is left out.
pub fn commands_in_flight(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    context: &CommandContext,
) -> Vec<OutgoingCommand> {
    in_flight(saga)
        .into_iter()
        .filter_map(|flight| build(definition, saga, flight, context)?.ok())
        .collect()
}

pub(super) fn in_flight(saga: &SagaInstance) -> Vec<FlightId> {
    // The steps of an abandoned saga keep their state, but their commands are not sent again.
    if saga.status.is_ended() {
        return Vec::new();
    }
    saga.steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match step.state.delivery()? {
            (direction, Delivery::InFlight { attempt, .. }) => Some(FlightId {
                index,
                direction,
                attempt: *attempt,
            }),
            (_, Delivery::BackingOff { .. } | Delivery::UsedUp { .. }) => None,
        })
        .collect()
}

/// Builds a command. `None` if the step has no such command. A resolve is answered without reading its payload, so a
/// resolve that would be too large is built without its payload.
pub(super) fn build(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    flight: FlightId,
    context: &CommandContext,
) -> Option<Result<OutgoingCommand, TooLarge>> {
    let step = definition.steps.get(flight.index)?;
    let spec = spec(step, flight.direction)?;
    let mut value = corrected(saga, flight).unwrap_or_else(|| payload(definition, saga, spec));
    let mut payload = record::json(&value);
    if !context.payload_limit.fits(payload.len()) {
        match flight.direction {
            Direction::Resolve => {
                value = Value::Null;
                payload = record::json(&value);
            }
            Direction::Forward | Direction::Compensation => {
                let payload_bytes = payload.len();
                return Some(Err(TooLarge { payload_bytes }));
            }
        }
    }
    let command = Command {
        saga_id: saga.id,
        step: step.name.clone(),
        direction: flight.direction,
        attempt: flight.attempt,
        command_type: command_type(spec, flight.direction),
        payload: value,
        save_failure: saves_failure(step.kind, flight.direction),
        reply_to: ReplyTo {
            topic: context.reply_topic.clone(),
            partition: saga.home_partition,
        },
        floor: context.floor,
        trace: saga.trace.clone(),
    };
    Some(Ok(OutgoingCommand {
        participant: step.participant.clone(),
        command,
        payload,
    }))
}

/// Returns false for failures that park: they are not saved, so that an operator's retry is simply a new attempt.
fn saves_failure(kind: StepKind, direction: Direction) -> bool {
    if mutant::on(Mutant::SaveParkingFailures) {
        return true;
    }
    match (direction, kind) {
        (Direction::Compensation, _) | (_, StepKind::Retriable) => false,
        (Direction::Forward | Direction::Resolve, StepKind::Compensatable | StepKind::Pivot) => {
            true
        }
    }
}

/// Returns the payload that an operator gave in place of the definition's.
fn corrected(saga: &SagaInstance, flight: FlightId) -> Option<Value> {
    let corrected = saga.steps.get(flight.index)?.corrected.as_ref()?;
    (corrected.direction == flight.direction).then(|| corrected.payload.clone())
}

fn payload(definition: &SagaDefinition, saga: &SagaInstance, spec: &CommandSpec) -> Value {
    let node = match &spec.input {
        InputMapping::WholeInput => return (*saga.input).clone(),
        InputMapping::Template(node) => node,
    };
    let results = saga
        .steps
        .iter()
        .map(|step| step.result.as_deref().unwrap_or(&Value::Null));
    let names = definition.steps.iter().map(|step| step.name.as_str());
    node.render(&Sources {
        input: &saga.input,
        steps: names.zip(results).collect(),
        cause: saga.cause.as_ref().map_or(
            Value::Null,
            |cause| json!({"step": cause.step, "code": cause.code, "message": cause.message}),
        ),
    })
}

/// Returns how a step's command of this direction is made. A resolve is made like the action that it asks about.
pub(super) fn spec(step: &Step, direction: Direction) -> Option<&CommandSpec> {
    match direction {
        Direction::Forward | Direction::Resolve => step.action.as_ref(),
        Direction::Compensation => step.compensation.as_ref(),
    }
}

/// Returns the name of a step's command in messages for people, or nothing if the step has no such command.
pub(super) fn command_name(step: &Step, direction: Direction) -> &str {
    spec(step, direction).map_or("", |spec| spec.command_type.as_str())
}

pub(super) fn command_type(spec: &CommandSpec, direction: Direction) -> String {
    match direction {
        Direction::Forward | Direction::Compensation => spec.command_type.clone(),
        Direction::Resolve => format!("{}{}", spec.command_type, Command::RESOLVE_SUFFIX),
    }
}
