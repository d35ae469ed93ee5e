//! The wire contract: the content of a Kafka record, and how commands, replies, starts, timers, operator actions and
//! lifecycle events are written to a record and read from it.
//!
//! Values are JSON. Attributes travel as headers in the CloudEvents 1.0 Kafka binding, binary mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>),
//! plus the `saga-*` headers of [`header`]. Keys are the saga id as text. Message ids are deterministic:
//! a message that is sent again has the same id.

mod command;
mod headers;
mod input;
mod limit;
pub(crate) mod record;
pub mod topic;
mod whole;

pub use command::{Command, Direction, ReplyTo};
pub use headers::Headers;
pub use input::{
    ActionKind, ActionName, CommandRef, Input, OperatorAction, PickUpStatus, Reply, StartSaga,
    TimerDue, TimerKind,
};
pub use limit::PayloadLimit;
pub use record::{DecodeError, IncomingRecord, OutgoingRecord, header};
pub use whole::{WHOLE_MAX, whole, whole_number, write_whole};

use serde::{Deserialize, Serialize};

/// The kind of a participant's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command was done; the payload is the step's result.
    Success,
    /// A business answer (declined, out of stock): the saga compensates.
    Failure,
    /// A technical answer (a handler broke, a gateway refused): the step's policy retries the command.
    Error,
    /// The answer to `resolve`, or to an action after it: the action was not done and never will be.
    NotDone,
}

impl Outcome {
    /// Returns the value of the `saga-outcome` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::NotDone => "not_done",
        }
    }
}

/// Payload of a `failure` or `error` reply, and of a saga's cause: a code for programs, a message for people.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub code: String,
    pub message: String,
}

impl Fault {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// The trace that every message about one saga carries.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The caller chooses the id, or the service that receives the request makes one; every message has it.
    pub correlation_id: String,
    /// W3C trace context, <https://www.w3.org/TR/trace-context/>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

#[cfg(test)]
mod tests;
