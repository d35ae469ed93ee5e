//! The error of definitions that cannot be registered.

use saga_core::definition::DefinitionError;
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum RegistryError {
    #[error("{}", faults(.0))]
    Invalid(Vec<DefinitionError>),
    #[error("{path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "definition '{name}' version {version} is in two files ({first} and {second}) with different content"
    )]
    Twice {
        name: String,
        version: u32,
        first: String,
        second: String,
    },
    #[error(
        "definition '{name}' version {version} ({file}) is registered already with other content: sagas may be pinned to it, so raise its version"
    )]
    Changed {
        name: String,
        version: u32,
        file: String,
    },
    #[error("the definition table cannot be used")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn faults(errors: &[DefinitionError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
