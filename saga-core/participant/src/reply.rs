//! Replies: new, saved, and waiting for their acknowledgment.

use saga_core::{
    ids::Timestamp,
    message::{Command, Direction, Fault, Outcome, OutgoingRecord, Reply, ReplyTo},
    mutant::{self, Mutant},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest code and longest message of a reply's fault: long enough to understand it, and too short to prevent the
/// reply from being sent.
const FAULT_TEXT_LIMIT_BYTES: usize = 4_096;

/// The part of a reply that the barrier keeps. The attempt is not kept: it is that of the command that asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedReply {
    #[serde(rename = "type")]
    pub reply_type: String,
    pub outcome: Outcome,
    pub payload: Value,
}

/// A reply with its destination. Its time is that of the decision, so that the record is the same whenever it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreparedReply {
    pub reply: Reply,
    pub reply_to: ReplyTo,
    pub at: Timestamp,
}

impl PreparedReply {
    pub fn encode(&self, source: &str) -> OutgoingRecord {
        let mut record = self.reply.encode(&self.reply_to, source, self.at);
        if mutant::on(Mutant::ReplyByKey) {
            record.partition = None;
        }
        record
    }

    pub(super) fn new(
        command: &Command,
        direction: Direction,
        saved: SavedReply,
        at: Timestamp,
    ) -> Self {
        Self {
            reply: Reply {
                saga_id: command.saga_id,
                step: command.step.clone(),
                direction,
                attempt: command.attempt,
                reply_type: saved.reply_type,
                outcome: saved.outcome,
                payload: saved.payload,
                trace: command.trace.clone(),
            },
            reply_to: command.reply_to.clone(),
            at,
        }
    }

    /// Returns the reply that a barrier's row has saved; a resolve gets that of the forward command.
    pub(super) fn saved(
        command: &Command,
        direction: Direction,
        saved: Option<SavedReply>,
        at: Timestamp,
    ) -> Self {
        let saved = saved.unwrap_or_else(|| SavedReply {
            reply_type: format!("{}.done", forward_type(command)),
            outcome: Outcome::Success,
            payload: Value::Null,
        });
        Self::new(command, direction, saved, at)
    }

    pub(super) fn not_done(command: &Command, at: Timestamp) -> Self {
        let saved = SavedReply {
            reply_type: format!("{}.not_done", forward_type(command)),
            outcome: Outcome::NotDone,
            payload: json!({}),
        };
        Self::new(command, command.direction, saved, at)
    }

    pub(super) fn error(command: &Command, fault: &Fault, at: Timestamp) -> Self {
        let saved = SavedReply {
            reply_type: format!("{}.error", command.command_type),
            outcome: Outcome::Error,
            payload: fault_payload(fault),
        };
        Self::new(command, command.direction, saved, at)
    }
}

pub(super) fn success(reply_type: String, result: Value) -> SavedReply {
    SavedReply {
        reply_type,
        outcome: Outcome::Success,
        payload: result,
    }
}

pub(super) fn failure(reply_type: String, fault: &Fault) -> SavedReply {
    SavedReply {
        reply_type,
        outcome: Outcome::Failure,
        payload: fault_payload(fault),
    }
}

fn fault_payload(fault: &Fault) -> Value {
    json!({"code": bounded(&fault.code), "message": bounded(&fault.message)})
}

/// Cuts a fault's text to the limit: a message may quote a handler's input or a panic.
fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(FAULT_TEXT_LIMIT_BYTES))
        .unwrap_or_default()
}

/// Returns the forward command's type, also for a resolve.
fn forward_type(command: &Command) -> &str {
    command
        .command_type
        .strip_suffix(Command::RESOLVE_SUFFIX)
        .unwrap_or(&command.command_type)
}
