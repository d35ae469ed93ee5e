//! A command with its payload, as handlers see it.

use crate::{Failure, payload::read_payload};
use saga_core::{
    ids::SagaId,
    message::{self, Direction, Trace},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Code of the failure of a command whose payload the participant cannot use.
pub const INVALID_PAYLOAD: &str = "invalid_payload";
/// Code of the error of a command whose type the participant does not know.
pub const UNKNOWN_COMMAND: &str = "unknown_command";

/// A command to this participant. `P` is the payload's type; without it, the payload stays JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<P = Value> {
    /// The saga, which owns every effect of this command.
    pub saga_id: SagaId,
    /// The step's name in the saga's definition.
    pub step: String,
    /// `Forward` or `Compensation`. A resolve never reaches a handler.
    pub direction: Direction,
    /// Counted from 1. A repeated command is answered by the library; a handler sees it only if no earlier attempt was
    /// done.
    pub attempt: u32,
    /// The command's type, such as `shipping.book`.
    pub command_type: String,
    pub payload: P,
    /// The correlation id and the trace context of the saga.
    pub trace: Trace,
}

impl<P> Command<P> {
    /// Returns the command's identity without the attempt: `<saga>/<step>/<direction>`. It is the same for all
    /// attempts, so it fits as an idempotency key.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.saga_id, self.step, self.direction)
    }

    pub(crate) fn with(command: &message::Command, payload: P) -> Self {
        Self {
            saga_id: command.saga_id,
            step: command.step.clone(),
            direction: command.direction,
            attempt: command.attempt,
            command_type: command.command_type.clone(),
            payload,
            trace: command.trace.clone(),
        }
    }
}

/// Parses the payload. A payload that does not fit is a business failure, because another attempt has the same one.
pub(crate) fn parse<P: DeserializeOwned>(command: &message::Command) -> Result<P, Failure> {
    read_payload(command).map_err(|why| {
        Failure::business(
            INVALID_PAYLOAD,
            format!("the payload is not as expected: {why}"),
        )
    })
}

/// Returns the failure of a command whose type is not known. It is technical: a newer version of the participant may
/// know the command.
pub(crate) fn unknown(command: &message::Command) -> Failure {
    Failure::technical(
        UNKNOWN_COMMAND,
        format!("this participant does not know '{}'", command.command_type),
    )
}
