//! The words of a sentence: definitions, commands and answers.

use saga_core::{definition::SagaDefinition, message::Outcome, transition::OutgoingCommand};
use serde_json::{Value, json};

/// The shipped definition that reserves stock before it charges.
pub fn place_order() -> SagaDefinition {
    shipped(
        "place-order.yaml",
        include_str!("../../../../orchestrator/definitions/place-order.yaml"),
    )
}

/// The shipped definition that charges before it sells the stock.
pub fn place_order_payment_first() -> SagaDefinition {
    shipped(
        "place-order-payment-first.yaml",
        include_str!("../../../../orchestrator/definitions/place-order-payment-first.yaml"),
    )
}

/// Reads a definition, or says in the panic what is wrong with it.
#[track_caller]
pub fn shipped(file: &str, yaml: &str) -> SagaDefinition {
    SagaDefinition::parse(file, yaml).unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("the definition is not good:\n{}", lines.join("\n"))
    })
}

/// What a command must be. Made by [`command`].
#[derive(Clone, Debug)]
pub struct Expected {
    command_type: String,
    participant: Option<String>,
    attempt: Option<u32>,
    payload: Option<Value>,
}

/// A command of this type.
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

    pub(super) fn matches(&self, sent: &OutgoingCommand) -> bool {
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

/// What a participant answers. Made by [`success`], [`failure`], [`error`] and [`not_done`].
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) outcome: Outcome,
    pub(super) payload: Value,
}

pub fn success(result: Value) -> Answer {
    Answer {
        outcome: Outcome::Success,
        payload: result,
    }
}

pub fn failure(code: &str, message: &str) -> Answer {
    Answer {
        outcome: Outcome::Failure,
        payload: json!({"code": code, "message": message}),
    }
}

pub fn error(code: &str, message: &str) -> Answer {
    Answer {
        outcome: Outcome::Error,
        payload: json!({"code": code, "message": message}),
    }
}

/// What the barrier answers to a resolve of what never ran.
pub fn not_done() -> Answer {
    Answer {
        outcome: Outcome::NotDone,
        payload: Value::Null,
    }
}
