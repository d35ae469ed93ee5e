//! Saga definitions. They are read from YAML at the start and registered in the database. The database determines which
//! version new sagas take ([`catalog`]); live sagas stay pinned to their version.

mod catalog;
mod error;
mod files;
mod report;

pub use catalog::{Catalog, Choice, Current, Registered, Registry, Withdrawn, that_runs};
pub use error::RegistryError;
pub use files::{NONE_THERE, definitions_in, text_of};
pub use report::{Line, what_runs};

use saga_core::definition::{DefinitionError, SagaDefinition};
use std::{collections::BTreeMap, path::Path};
use tracing::warn;

/// The definitions of the reference application, embedded in the binary.
pub const SHIPPED: [(&str, &str); 2] = [
    (
        "place-order.yaml",
        include_str!("../definitions/place-order.yaml"),
    ),
    (
        "place-order-payment-first.yaml",
        include_str!("../definitions/place-order-payment-first.yaml"),
    ),
];

/// A definition, and the file that it was read from.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: String,
    pub definition: SagaDefinition,
}

/// Reads the shipped definitions, if `shipped` is set, and every definition of a directory, in name order.
pub fn read(shipped: bool, directory: Option<&Path>) -> Result<Vec<Source>, RegistryError> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    let mut texts: Vec<(String, String)> = Vec::new();
    if shipped {
        texts.extend(SHIPPED.map(|(file, text)| (file.to_owned(), text.to_owned())));
    }
    if let Some(directory) = directory {
        let paths = definitions_in(directory)?;
        if paths.is_empty() {
            warn!(directory = %directory.display(), "{NONE_THERE}");
        }
        for path in paths {
            texts.push((path.display().to_string(), text_of(&path)?));
        }
    }
    for (file, text) in texts {
        match SagaDefinition::parse(&file, &text) {
            Ok(definition) => sources.push(Source { file, definition }),
            Err(found) => errors.extend(found),
        }
    }
    if !errors.is_empty() {
        return Err(RegistryError::Invalid(errors));
    }
    refuse_twice(&sources)?;
    Ok(sources)
}

/// Refuses two sources of the same definition and version that differ in content.
pub fn refuse_twice(sources: &[Source]) -> Result<(), RegistryError> {
    let mut seen: BTreeMap<(&str, u32), &Source> = BTreeMap::new();
    for source in sources {
        let key = (source.definition.name.as_str(), source.definition.version);
        if let Some(first) = seen.insert(key, source)
            && first.definition.hash != source.definition.hash
        {
            return Err(RegistryError::Twice {
                name: source.definition.name.clone(),
                version: source.definition.version,
                first: first.file.clone(),
                second: source.file.clone(),
            });
        }
    }
    Ok(())
}

/// Refuses definitions that send commands to a participant that is not configured.
pub fn check_participants(
    sources: &[Source],
    is_configured: impl Fn(&str) -> bool,
) -> Result<(), RegistryError> {
    let faults: Vec<DefinitionError> = sources
        .iter()
        .flat_map(|source| source.definition.steps.iter().map(move |step| (source, step)))
        .filter(|(_, step)| !is_configured(&step.participant))
        .map(|(source, step)| DefinitionError {
            file: source.file.clone(),
            line: step.participant_line,
            step: Some(step.name.clone()),
            message: format!(
                "participant '{0}' is not configured; add a table [participants.{0}] with topic and group",
                step.participant
            ),
        })
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(RegistryError::Invalid(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_definitions_are_valid() {
        let names: Vec<String> = read(true, None)
            .unwrap()
            .into_iter()
            .map(|source| source.definition.name)
            .collect();
        assert_eq!(names, ["place-order", "place-order-payment-first"]);
    }

    #[test]
    fn each_shipped_definition_declares_the_schema_of_its_input() {
        for source in read(true, None).unwrap() {
            let definition = source.definition;
            let refused = definition.check_input(&serde_json::json!({"orderId": "seven"}));
            assert!(refused.is_err(), "{}", definition.name);
        }
    }

    #[test]
    fn an_unconfigured_participant_is_named_with_file_line_and_step() {
        let sources = read(true, None).unwrap();
        let error = check_participants(&sources, |name| name != "payment").unwrap_err();
        let text = error.to_string();
        let line = include_str!("../definitions/place-order.yaml")
            .lines()
            .position(|line| line.trim() == "participant: payment")
            .unwrap()
            + 1;
        let place = format!("place-order.yaml:{line}: step 'charge-payment': ");
        assert!(text.contains(&place), "{text}");
        assert!(
            text.contains("participant 'payment' is not configured"),
            "{text}"
        );
    }
}
