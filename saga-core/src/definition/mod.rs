//! A saga definition describes a business transaction as data. [`SagaDefinition::parse`] makes it from YAML and checks
//! everything that can be checked before the first saga runs.

mod document;
mod duration;
mod error;
mod faults;
mod input;
mod model;
mod order;
mod path;
mod schema;
mod validate;
mod yaml;

pub use error::DefinitionError;
pub use input::{InputMapping, MappingNode, Sources};
pub use model::{BusinessKey, CommandSpec, DefinitionHash, SagaDefinition, Step, StepKind};
pub use path::Reference;
pub use schema::{InputMisfit, InputSchema};
pub use validate::MAX_STEPS;

use serde_json::Value;

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
}

#[cfg(test)]
mod tests;
