//! A saga definition describes a business transaction as data. [`SagaDefinition::parse`] makes it from YAML and checks
//! everything that can be checked before the first saga runs.

mod document;
mod duration;
mod faults;
mod input;
mod order;
mod path;
mod schema;
mod validate;
mod yaml;

pub use input::Sources;
pub use path::Reference;
pub use schema::{InputMisfit, InputSchema};
pub use validate::MAX_STEPS;

use crate::retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeSet, fmt};
use thiserror::Error;

/// SHA-256 of a definition's canonical content, as lower-case hex. An instance keeps the hash of the definition it
/// started with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DefinitionHash(pub String);

/// The position of a step relative to the pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// The step can be undone: it has a compensation, and it is a strict ancestor of the pivot if there is a pivot.
    Compensatable,
    /// The step decides: once it is done, the saga goes forward to its end. A saga has at most one pivot.
    Pivot,
    /// The step comes after the pivot and is retried until it succeeds.
    Retriable,
}

/// Limits how many live sagas of one definition, whatever their versions, may have the same business key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusinessKey {
    /// No limit: the key only serves to find sagas.
    #[default]
    Any,
    /// At most one: a second start is refused until the first saga has ended. A saga without a key is not limited.
    Unique,
}

impl BusinessKey {
    // By reference: serde passes one.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

/// A checked definition. Steps are in file order; indices into `steps` are stable.
#[derive(Clone, Debug)]
pub struct SagaDefinition {
    pub name: String,
    pub version: u32,
    pub hash: DefinitionHash,
    /// Milliseconds from the start of an instance.
    pub deadline_ms: u64,
    /// `None` if any object is accepted.
    pub input_schema: Option<InputSchema>,
    pub business_key: BusinessKey,
    pub steps: Vec<Step>,
    /// The document as canonical JSON, as it is stored beside its hash.
    pub document: Value,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub kind: StepKind,
    pub participant: String,
    /// The line of `participant` in the file; `None` if the definition was restored from its document.
    pub participant_line: Option<usize>,
    /// `None` if the starter does the step before the saga begins.
    pub action: Option<CommandSpec>,
    pub compensation: Option<CommandSpec>,
    /// How often a pivot's outcome is asked for before the saga parks; `None` means until the saga's deadline.
    pub resolve_attempts: Option<u32>,
    /// Indices of the steps that `after` names.
    pub after: Vec<usize>,
    /// Indices of all steps before this one, direct or indirect.
    pub ancestors: Vec<usize>,
}

/// Describes how one command of a step is made and retried.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    pub command_type: String,
    pub input: InputMapping,
    /// Milliseconds from the instant at which the attempt was seen to be consumed.
    pub timeout_ms: u64,
    pub retry: RetryPolicy,
}

/// The source of a command's payload. Paths are JSONPath (RFC 9535) into
/// `{"input": …, "steps": {"<name>": <result>}, "cause": …}`. A path that finds nothing yields `null`. A path that may
/// match several nodes (wildcard, filter, slice, union, descendants) yields a list, however many nodes it matches.
#[derive(Clone, Debug)]
pub enum InputMapping {
    /// The whole input of the saga.
    WholeInput,
    /// A template: strings that begin with `$` are paths, everything else is taken literally. `$$` at the beginning of
    /// a string is a dollar sign.
    Template(MappingNode),
}

#[derive(Clone, Debug)]
pub enum MappingNode {
    /// The value that the path yields; a list if `several` nodes may match the path, however many do. The path starts
    /// at `root`, or at the whole object if `root` is `None`.
    Path {
        root: Option<Reference>,
        path: serde_json_path::JsonPath,
        several: bool,
    },
    Literal(Value),
    Object(Vec<(String, MappingNode)>),
    Array(Vec<MappingNode>),
}

/// Says why a definition is refused (file, line and step), and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct DefinitionError {
    pub file: String,
    /// Counted from 1; `None` if the error has no place in the text.
    pub line: Option<usize>,
    pub step: Option<String>,
    pub message: String,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(step) = &self.step {
            write!(f, ": step '{step}'")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl SagaDefinition {
    /// Parses and checks one YAML document. `file` is used in errors only. Returns all faults, not only the first.
    pub fn parse(file: &str, yaml: &str) -> Result<Self, Vec<DefinitionError>> {
        let (document, places, faults) = yaml::read(file, yaml)?;
        validate::check(document, &places, faults)
    }

    /// Restores a definition from the stored document (see [`Self::document`]).
    pub fn from_document(document: &Value) -> Result<Self, Vec<DefinitionError>> {
        let (document, places, faults) = document::read(document)?;
        validate::check(document, &places, faults)
    }

    /// Refuses an input that the definition's schema does not allow. Every endpoint and topic that accepts starts calls
    /// this.
    pub fn check_input(&self, input: &Value) -> Result<(), InputMisfit> {
        match &self.input_schema {
            Some(schema) => schema.check(input),
            None => Ok(()),
        }
    }

    /// Returns the participants to which a saga of this definition sends commands.
    pub fn participants(&self) -> BTreeSet<&str> {
        self.steps
            .iter()
            .map(|step| step.participant.as_str())
            .collect()
    }

    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps
            .iter()
            .enumerate()
            .find(|(_, step)| step.name == name)
    }

    pub fn pivot(&self) -> Option<usize> {
        self.steps
            .iter()
            .position(|step| step.kind == StepKind::Pivot)
    }
}

#[cfg(test)]
mod tests;
