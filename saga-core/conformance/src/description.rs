//! Reads the small file that describes to the kit how to talk to a participant.

use saga_core::{
    json,
    yaml::{self, YamlError},
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use thiserror::Error;

/// A participant under test. `$name` in inputs, addresses and queries is replaced by a value: one of `variables` (which
/// a command line may override), an id of `new`, a value that `prepare` captured, or `$saga`; `$$` is a dollar sign.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The participant's name, such as `payment`.
    pub participant: String,
    /// The command topic, such as `payment.commands`.
    pub topic: String,
    /// The participant's consumer group. Without it, committed offsets are not checked.
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, Value>,
    /// Names that get a new UUID in every scene.
    #[serde(default)]
    pub new: Vec<String>,
    /// The saga's id if `prepare` starts the saga, such as `$order_saga`; otherwise the kit makes a new id.
    #[serde(default)]
    pub saga: Option<String>,
    /// Requests that set a scene up.
    #[serde(default)]
    pub prepare: Vec<Request>,
    /// The way to see effects.
    #[serde(default)]
    pub look: Option<Look>,
    pub commands: Vec<Command>,
    /// A step that the starter does, so that only its compensation is ever sent as a command.
    #[serde(default)]
    pub started: Option<Started>,
}

/// A request to prepare a scene:
/// `{ method: PUT, url: $http/stock/$product, body: {...}, capture: { name: /json/pointer } }`. It must succeed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    pub url: String,
    #[serde(default)]
    pub body: Value,
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
}

/// A source of JSON that changes when an effect happens, and only then. A `404` counts as `null`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Look {
    Http {
        http: String,
        /// JSON pointers to the parts of the response that only effects change; by default the whole response.
        #[serde(default)]
        pointers: Vec<String>,
    },
    /// A query that returns rows of one text column.
    Postgres { postgres: String, query: String },
}

/// A command type with examples. The kit does not test what is left out, and the report says so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    #[serde(rename = "type")]
    pub command_type: String,
    /// Commands that must have been done before, in other steps of the same saga.
    #[serde(default)]
    pub given: Vec<Given>,
    pub succeeds: Example,
    /// JSON pointers to the numbers of the input that must be whole, such as `/amountMinor`.
    #[serde(default)]
    pub whole: Vec<String>,
    /// An example that is answered with a business failure.
    #[serde(default)]
    pub fails: Option<Example>,
    /// An example that is answered with a technical error, which is retried.
    #[serde(default)]
    pub errors: Option<Example>,
    #[serde(default)]
    pub compensation: Option<Compensation>,
    /// The reply to another saga that names an object which this saga holds.
    #[serde(default)]
    pub another_saga: Option<Refused>,
}

/// A business failure, whatever the input is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The code of the fault.
    pub code: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    #[serde(rename = "type")]
    pub command_type: String,
    pub input: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    pub input: Value,
    /// The type of the reply.
    #[serde(default)]
    pub reply: Option<String>,
    /// The code of the fault of a failure or an error.
    #[serde(default)]
    pub code: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compensation {
    #[serde(rename = "type")]
    pub command_type: String,
    pub input: Value,
    #[serde(default)]
    pub reply: Option<String>,
    /// An input with which a compensation of a done action is answered with a failure.
    #[serde(default)]
    pub fails: Option<Example>,
}

/// The step that [`Description::started`] describes. Its saga is [`Description::saga`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    pub step: String,
    pub compensation: Compensation,
}

/// A description that cannot be used.
#[derive(Debug, Error)]
pub enum DescriptionError {
    #[error("the description cannot be read: {0}")]
    Unreadable(#[from] YamlError),
    #[error("the description names no command")]
    NoCommand,
    #[error("'{0}' is a name of the kit's own")]
    Reserved(String),
}

/// The name that an input without a description may use.
const NEW: &str = "new";
/// The name of the saga's id in every scene.
pub const SAGA: &str = "saga";

impl Description {
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        let description: Self = yaml::from_str(text)?;
        if description.commands.is_empty() {
            return Err(DescriptionError::NoCommand);
        }
        let names = description.variables.keys().chain(&description.new);
        match names.into_iter().find(|name| *name == SAGA) {
            Some(name) => Err(DescriptionError::Reserved(name.clone())),
            None => Ok(description),
        }
    }

    /// Sets a variable, for example from the command line: as JSON if the text is JSON that can be kept, else as text.
    pub fn set(&mut self, variable: &str, text: &str) {
        let value = json::from_slice(text.as_bytes()).unwrap_or_else(|_| Value::from(text));
        self.variables.insert(variable.to_owned(), value);
    }

    /// Describes one command that succeeds with `input`, in which `$new` is a new UUID in every scene. Nothing else is
    /// known.
    pub fn of_command(participant: &str, topic: &str, command_type: &str, input: Value) -> Self {
        Self {
            participant: participant.to_owned(),
            topic: topic.to_owned(),
            group: None,
            variables: BTreeMap::new(),
            new: vec![NEW.to_owned()],
            saga: None,
            prepare: Vec::new(),
            look: None,
            commands: vec![Command {
                command_type: command_type.to_owned(),
                given: Vec::new(),
                succeeds: Example {
                    input,
                    reply: None,
                    code: None,
                },
                whole: Vec::new(),
                fails: None,
                errors: None,
                compensation: None,
                another_saga: None,
            }],
            started: None,
        }
    }
}

/// Returns the shipped description of a participant of the reference application.
pub fn shipped(participant: &str) -> Option<&'static str> {
    match participant {
        "order" => Some(include_str!("participants/order.yaml")),
        "inventory" => Some(include_str!("participants/inventory.yaml")),
        "payment" => Some(include_str!("participants/payment.yaml")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_descriptions_can_be_used() {
        for name in ["order", "inventory", "payment"] {
            let description = Description::parse(shipped(name).expect("shipped")).expect(name);
            assert_eq!(description.participant, name);
            assert!(description.look.is_some(), "{name}");
        }
        assert!(shipped("shipping").is_none());
    }

    #[test]
    fn words_in_an_input_are_text() {
        let yaml = "{participant: a, topic: b, commands: [{type: a.b, succeeds: {input: {c: NO, d: 1_000}}}]}";
        let description = Description::parse(yaml).expect(yaml);
        let input = &description.commands[0].succeeds.input;
        assert_eq!(input, &serde_json::json!({"c": "NO", "d": "1_000"}));
    }

    #[test]
    fn a_description_with_a_mistake_is_refused() {
        let check = |yaml: &str, expected: &str| {
            let error = Description::parse(yaml).expect_err(yaml).to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("participant: a\ntopic: b\ncommands: []", "no command");
        check("participant: a\ntopic: b\ncomands: []", "comands");
        let command = "commands: [{type: a.b, succeeds: {input: {}}}]";
        check(
            &format!("participant: a\ntopic: b\nnew: [saga]\n{command}"),
            "'saga'",
        );
        let number = "commands: [{type: a.b, succeeds: {input: {id: 12345678901234567890123}}}]";
        check(
            &format!("participant: a\ntopic: b\n{number}"),
            "line 3: 12345678901234567890123 is a number with more digits than can be kept",
        );
    }
}
