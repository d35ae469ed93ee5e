//! The normalised document: what a definition says with every default filled in and every duration in
//! milliseconds. It is what is stored, and what the hash is made of, so that comments, white space and the order
//! of keys change nothing.

use super::{DefinitionError, DefinitionHash, StepKind, validate::Faults};
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
    pub steps: Vec<StepDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StepDocument {
    pub name: String,
    pub kind: StepKind,
    pub participant: String,
    /// Absent: done by the starter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<CommandDocument>,
    pub after: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CommandDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CommandDocument {
    pub command: String,
    /// Absent: all of the saga's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    pub timeout_ms: u64,
    pub retry: RetryPolicy,
}

/// Lines of the parts of a YAML file, for errors; all unknown for a stored document.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub name: Option<usize>,
    pub version: Option<usize>,
    pub deadline: Option<usize>,
    pub steps: Vec<StepPlaces>,
    /// To find the line of a path inside a template.
    pub text: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct StepPlaces {
    pub step: Option<usize>,
    pub participant: Option<usize>,
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
    /// The line on which `text` stands at or below `from`, else `from` itself.
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

/// The document as JSON with sorted keys.
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
