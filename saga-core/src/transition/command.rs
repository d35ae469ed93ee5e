//! The commands of a saga, rebuilt from its state alone: sent again they have the same ids and payloads.

use super::{
    Outbound, OutgoingCommand,
    draft::{command_type, spec},
};
use crate::{
    definition::{CommandSpec, InputMapping, SagaDefinition, Sources, StepKind},
    instance::{Delivery, SagaInstance},
    message::{Command, Direction, ReplyTo},
    mutant::{self, Mutant},
};
use serde_json::{Value, json};

/// Which command is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlightId {
    pub index: usize,
    pub direction: Direction,
    pub attempt: u32,
}

/// The commands in flight, as they were sent and would be sent again: same ids, same payloads.
pub fn commands_in_flight(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    outbound: &Outbound,
) -> Vec<OutgoingCommand> {
    in_flight(saga)
        .into_iter()
        .filter_map(|flight| build(definition, saga, flight, outbound))
        .collect()
}

pub(super) fn in_flight(saga: &SagaInstance) -> Vec<FlightId> {
    // An abandoned saga's steps stay as they were found, and nothing of it is sent again.
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

pub(super) fn build(
    definition: &SagaDefinition,
    saga: &SagaInstance,
    flight: FlightId,
    outbound: &Outbound,
) -> Option<OutgoingCommand> {
    let step = definition.steps.get(flight.index)?;
    let spec = spec(step, flight.direction)?;
    let command = Command {
        saga_id: saga.id,
        step: step.name.clone(),
        direction: flight.direction,
        attempt: flight.attempt,
        command_type: command_type(spec, flight.direction),
        payload: corrected(saga, flight).unwrap_or_else(|| payload(definition, saga, spec)),
        save_failure: saves_failure(step.kind, flight.direction),
        reply_to: ReplyTo {
            topic: outbound.reply_topic.clone(),
            partition: saga.home_partition,
        },
        floor: outbound.floor,
        trace: saga.trace.clone(),
    };
    Some(OutgoingCommand {
        participant: step.participant.clone(),
        command,
    })
}

/// A failure that parks is not saved, so that an operator's retry is simply a new attempt.
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

/// What an operator gave instead of what the definition makes.
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
