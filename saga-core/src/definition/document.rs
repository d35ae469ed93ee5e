//! The normalized document: a definition with every default filled in and every duration in milliseconds. The document
//! is stored, and the hash is computed from it, so that comments, white space and the order of keys do not change the
//! hash.

use super::{
    error::DefinitionError,
    faults::Faults,
    model::{BusinessKey, DefinitionHash, StepKind},
};
use crate::retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    pub name: String,
    pub version: u32,
    pub deadline_ms: u64,
    /// Absent if any object is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputDocument>,
    /// Absent if it is `any`, so that definitions without this key keep their hash.
    #[serde(default, skip_serializing_if = "BusinessKey::is_any")]
    pub business_key: BusinessKey,
    pub steps: Vec<StepDocument>,
}

/// Describes a saga's input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputDocument {
    pub schema: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StepDocument {
    pub name: String,
    pub kind: StepKind,
    pub participant: String,
    /// Absent if the starter does the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<CommandDocument>,
    pub after: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CommandDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_attempts: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CommandDocument {
    pub command: String,
    /// Absent if the payload is the whole input of the saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    pub timeout_ms: u64,
    pub retry: RetryPolicy,
}

/// Line numbers of the parts of a YAML file, for errors. A stored document has no line numbers.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub name: Option<usize>,
    pub version: Option<usize>,
    pub deadline: Option<usize>,
    pub schema: Option<usize>,
    pub steps: Vec<StepPlaces>,
    /// The text of the file, in which the line of a template's path or of a schema's key is looked up.
    pub text: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct StepPlaces {
    pub step: Option<usize>,
    pub participant: Option<usize>,
    pub resolve: Option<usize>,
    pub after: Vec<Option<usize>>,
    pub action: CommandPlaces,
    pub compensation: CommandPlaces,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CommandPlaces {
    pub command: Option<usize>,
    pub input: Option<usize>,
    pub timeout: Option<usize>,
    pub retry: Option<usize>,
}

impl Places {
    /// Returns the first line at or below `from` that contains `text`, or `from` itself if no line does.
    pub fn line_of(&self, text: &str, from: Option<usize>) -> Option<usize> {
        let first = from?;
        self.text
            .lines()
            .enumerate()
            .skip(first.saturating_sub(1))
            .find(|(_, line)| line.contains(text))
            .map_or(Some(first), |(index, _)| Some(index + 1))
    }
}

/// Reads a stored document.
pub(super) fn read(stored: &Value) -> Result<(Document, Places, Faults), Vec<DefinitionError>> {
    let name = stored.get("name").and_then(Value::as_str).unwrap_or("?");
    let file = format!("stored definition {name}");
    let document: Document = serde_json::from_value(stored.clone()).map_err(|error| {
        vec![DefinitionError {
            file: file.clone(),
            line: None,
            step: None,
            message: error.to_string(),
        }]
    })?;
    let steps = document
        .steps
        .iter()
        .map(|step| StepPlaces {
            after: vec![None; step.after.len()],
            ..StepPlaces::default()
        })
        .collect();
    let places = Places {
        steps,
        ..Places::default()
    };
    Ok((document, places, Faults::new(file)))
}

/// Returns the document as JSON with sorted keys.
pub(super) fn canonical(document: &Document) -> Value {
    sorted(serde_json::to_value(document).unwrap_or(Value::Null))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let entries: BTreeMap<String, Value> = entries
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

pub(super) fn hash(canonical: &Value) -> DefinitionHash {
    let digest = Sha256::digest(canonical.to_string().as_bytes());
    let mut hex = String::with_capacity(64);
    for byte in digest {
        // Writing to a string cannot fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
    }
    DefinitionHash(hex)
}
