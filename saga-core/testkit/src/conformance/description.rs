//! The small file that tells the kit how to talk to a participant.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use thiserror::Error;

/// A participant under test. `$name` in inputs, addresses and queries is replaced: by `variables` (which a command line
/// may override), by the ids in `new`, by what `prepare` captured, and `$saga`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// `payment`.
    pub participant: String,
    /// `payment.commands`.
    pub topic: String,
    /// Its consumer group; without it nothing is said about committed offsets.
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, Value>,
    /// Names that get a new UUID in every scene.
    #[serde(default)]
    pub new: Vec<String>,
    /// Requests that set a scene up.
    #[serde(default)]
    pub prepare: Vec<Request>,
    /// How effects are seen.
    #[serde(default)]
    pub look: Option<Look>,
    pub commands: Vec<Command>,
    /// A step that the starter does, so that only its compensation is ever commanded.
    #[serde(default)]
    pub started: Option<Started>,
}

/// `{ method: PUT, url: $http/stock/$product, body: {...}, capture: { name: /json/pointer } }`; must succeed.
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

/// Yields some JSON that changes when an effect happens, and only then. A `404` is `null`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Look {
    Http {
        http: String,
        /// JSON pointers into the answer, to what only effects change; all of it by default.
        #[serde(default)]
        pointers: Vec<String>,
    },
    /// A query that yields rows of one text column.
    Postgres { postgres: String, query: String },
}

/// A command type with examples. What is left out is not tried, and the report says so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    #[serde(rename = "type")]
    pub command_type: String,
    /// Commands that must have been done before, in other steps of the same saga.
    #[serde(default)]
    pub given: Vec<Given>,
    pub succeeds: Example,
    /// A business "no".
    #[serde(default)]
    pub fails: Option<Example>,
    /// A technical answer, which is tried again.
    #[serde(default)]
    pub errors: Option<Example>,
    #[serde(default)]
    pub compensation: Option<Compensation>,
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
    /// The reply's type.
    #[serde(default)]
    pub reply: Option<String>,
    /// The fault's code, of a failure or an error.
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
    /// An input that a compensation of what was done answers with a failure.
    #[serde(default)]
    pub fails: Option<Example>,
}

/// See [`Description::started`]. The saga is the one that `prepare` has started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    pub step: String,
    /// The saga's id, such as `$order`.
    pub saga: String,
    pub compensation: Compensation,
}

/// A description that cannot be used.
#[derive(Debug, Error)]
pub enum DescriptionError {
    #[error("the description cannot be read: {0}")]
    Unreadable(String),
    #[error("the description names no command")]
    NoCommand,
    #[error("'{0}' is a name of the kit's own")]
    Reserved(String),
}

/// What an input that comes without a description may use.
const NEW: &str = "new";
/// The saga's id in every scene.
pub const SAGA: &str = "saga";

impl Description {
    pub fn parse(yaml: &str) -> Result<Self, DescriptionError> {
        let description: Self = serde_saphyr::from_str(yaml)
            .map_err(|error| DescriptionError::Unreadable(error.to_string()))?;
        if description.commands.is_empty() {
            return Err(DescriptionError::NoCommand);
        }
        let names = description.variables.keys().chain(&description.new);
        match names.into_iter().find(|name| *name == SAGA) {
            Some(name) => Err(DescriptionError::Reserved(name.clone())),
            None => Ok(description),
        }
    }

    /// Gives a variable a value that may come from a command line: JSON if it is any, else text.
    pub fn set(&mut self, variable: &str, text: &str) {
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        self.variables.insert(variable.to_owned(), value);
    }

    /// One command that succeeds with `input`, in which `$new` is a new UUID in every scene; nothing else is known.
    pub fn of_command(participant: &str, topic: &str, command_type: &str, input: Value) -> Self {
        Self {
            participant: participant.to_owned(),
            topic: topic.to_owned(),
            group: None,
            variables: BTreeMap::new(),
            new: vec![NEW.to_owned()],
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
                fails: None,
                errors: None,
                compensation: None,
            }],
            started: None,
        }
    }
}

/// The descriptions of the reference application's participants, as they are shipped.
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
    }
}
