//! The types of a checked definition.

use super::{
    input::InputMapping,
    schema::{InputMisfit, InputSchema},
};
use crate::retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

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
    pub(super) fn is_any(&self) -> bool {
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

impl SagaDefinition {
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
