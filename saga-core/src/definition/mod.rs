//! A saga definition: what a business transaction is made of, as data. Made from YAML by [`SagaDefinition::parse`],
//! which checks everything that can be checked before the first saga runs.

mod document;
mod duration;
mod input;
mod order;
mod path;
mod validate;
mod yaml;

pub use input::Sources;
pub use path::Reference;
pub use validate::MAX_STEPS;

use crate::retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeSet, fmt};
use thiserror::Error;

/// SHA-256 of a definition's canonical content, as lower-case hex. Pins an instance to what it started with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DefinitionHash(pub String);

/// Where a step stands relative to the pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Can be undone: has a compensation, and is a strict ancestor of the pivot if there is one.
    Compensatable,
    /// Decides: once it is done the saga goes forward to its end. At most one.
    Pivot,
    /// Comes after the pivot and is retried until it succeeds.
    Retriable,
}

/// A checked definition. Steps are in file order; indices into `steps` are stable.
#[derive(Clone, Debug)]
pub struct SagaDefinition {
    pub name: String,
    pub version: u32,
    pub hash: DefinitionHash,
    /// From the start of an instance; milliseconds.
    pub deadline_ms: u64,
    pub steps: Vec<Step>,
    /// The document as canonical JSON, as it is stored beside its hash.
    pub document: Value,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub kind: StepKind,
    pub participant: String,
    /// Where `participant` stands in the file; `None` if the definition was restored from its document.
    pub participant_line: Option<usize>,
    /// `None`: done by the starter before the saga began.
    pub action: Option<CommandSpec>,
    pub compensation: Option<CommandSpec>,
    /// Indices of the steps this one waits for.
    pub after: Vec<usize>,
    /// Indices of all steps before this one, directly or not.
    pub ancestors: Vec<usize>,
}

/// How one command of a step is made and retried.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    pub command_type: String,
    pub input: InputMapping,
    /// From when an attempt's pick-up was seen; milliseconds.
    pub timeout_ms: u64,
    pub retry: RetryPolicy,
}

/// Where a command's payload comes from. Paths are JSONPath (RFC 9535) into
/// `{"input": …, "steps": {"<name>": <result>}, "cause": …}`; a path that finds nothing yields `null`; one that may
/// match several nodes (wildcard, filter, slice, union, descendants) yields a list, however many it matches.
#[derive(Clone, Debug)]
pub enum InputMapping {
    /// All of the saga's input.
    WholeInput,
    /// A template: strings that begin with `$` are paths, everything else stands as it is.
    Template(MappingNode),
}

#[derive(Clone, Debug)]
pub enum MappingNode {
    /// A value that the path yields; a list if `several` nodes may match it, however many do. It begins at `root`, or at
    /// all that there is.
    Path {
        root: Option<Reference>,
        path: serde_json_path::JsonPath,
        several: bool,
    },
    Literal(Value),
    Object(Vec<(String, MappingNode)>),
    Array(Vec<MappingNode>),
}

/// Why a definition is refused: file, line and step, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct DefinitionError {
    pub file: String,
    /// From 1; `None` if the fault has no place in the text.
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
    /// Parses and checks one YAML document. `file` is used in errors only. All faults found are returned.
    pub fn parse(file: &str, yaml: &str) -> Result<Self, Vec<DefinitionError>> {
        let (document, places, faults) = yaml::read(file, yaml)?;
        validate::check(document, &places, faults)
    }

    /// Restores a definition from the stored document (see [`Self::document`]).
    pub fn from_document(document: &Value) -> Result<Self, Vec<DefinitionError>> {
        let (document, places, faults) = document::read(document)?;
        validate::check(document, &places, faults)
    }

    /// Everyone who is sent a command by a saga of this definition.
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
