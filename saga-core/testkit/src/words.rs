//! The words of a sentence: definitions, commands and answers.

use saga_core::{definition::SagaDefinition, message::Outcome, transition::OutgoingCommand};
use serde_json::{Value, json};

/// Reads a definition. Panics with its errors if it is not valid.
#[track_caller]
pub fn definition(file: &str, yaml: &str) -> SagaDefinition {
    SagaDefinition::parse(file, yaml).unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("the definition is not good:\n{}", lines.join("\n"))
    })
}

/// The properties that a command must have. Made by [`command`].
#[derive(Clone, Debug)]
pub struct Expected {
    command_type: String,
    participant: Option<String>,
    attempt: Option<u32>,
    payload: Option<Value>,
}

/// Expects a command of this type.
pub fn command(command_type: &str) -> Expected {
    Expected {
        command_type: command_type.to_owned(),
        participant: None,
        attempt: None,
        payload: None,
    }
}

impl Expected {
    #[must_use]
    pub fn to(mut self, participant: &str) -> Self {
        self.participant = Some(participant.to_owned());
        self
    }

    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    #[must_use]
    pub fn carrying(mut self, payload: Value) -> Self {
        self.payload = Some(payload);
        self
    }

    pub(crate) fn matches(&self, sent: &OutgoingCommand) -> bool {
        let command = &sent.command;
        command.command_type == self.command_type
            && self
                .participant
                .as_ref()
                .is_none_or(|name| *name == sent.participant)
            && self
                .attempt
                .is_none_or(|attempt| attempt == command.attempt)
            && self
                .payload
                .as_ref()
                .is_none_or(|payload| *payload == command.payload)
    }
}

/// A participant's answer. Made by [`success`], [`failure`], [`error`] and [`not_done`].
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) payload: Value,
    /// True for a success or failure whose direction is `resolve`, which the contract does not allow.
    pub(crate) breaks_contract: bool,
}

/// Returns the same answer with direction `resolve`, where the contract wants the action's own reply.
pub fn answered_resolve(answer: Answer) -> Answer {
    Answer {
        breaks_contract: true,
        ..answer
    }
}

pub fn success(result: Value) -> Answer {
    Answer {
        outcome: Outcome::Success,
        payload: result,
        breaks_contract: false,
    }
}

pub fn failure(code: &str, message: &str) -> Answer {
    Answer {
        outcome: Outcome::Failure,
        payload: json!({"code": code, "message": message}),
        breaks_contract: false,
    }
}

pub fn error(code: &str, message: &str) -> Answer {
    Answer {
        outcome: Outcome::Error,
        payload: json!({"code": code, "message": message}),
        breaks_contract: false,
    }
}

/// Returns the barrier's answer to a resolve of an action that never ran.
pub fn not_done() -> Answer {
    Answer {
        outcome: Outcome::NotDone,
        payload: Value::Null,
        breaks_contract: false,
    }
}
