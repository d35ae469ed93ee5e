//! The definitions that this process can run: the newest of each name for new sagas, every pinned one for those that
//! are under way. Read from YAML at the start, registered in the database, and found there again by hash.

use saga_core::definition::{DefinitionError, DefinitionHash, SagaDefinition};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use thiserror::Error;

/// The definitions of the reference application, compiled in.
const SHIPPED: [(&str, &str); 2] = [
    (
        "place-order.yaml",
        include_str!("../definitions/place-order.yaml"),
    ),
    (
        "place-order-payment-first.yaml",
        include_str!("../definitions/place-order-payment-first.yaml"),
    ),
];

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
    #[error(
        "live sagas are pinned to '{name}' version {version}, whose participant '{participant}' is not configured; add a table [participants.{participant}] with topic and group"
    )]
    PinnedParticipant {
        name: String,
        version: u32,
        participant: String,
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

/// A definition and where it was read.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: String,
    pub definition: SagaDefinition,
}

/// Reads the shipped definitions, if wanted, and every `*.yaml` and `*.yml` of a directory, in name order.
pub fn read(shipped: bool, directory: Option<&Path>) -> Result<Vec<Source>, RegistryError> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    let mut texts: Vec<(String, String)> = Vec::new();
    if shipped {
        texts.extend(SHIPPED.map(|(file, text)| (file.to_owned(), text.to_owned())));
    }
    if let Some(directory) = directory {
        texts.extend(read_directory(directory)?);
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

fn read_directory(directory: &Path) -> Result<Vec<(String, String)>, RegistryError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| RegistryError::Unreadable { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}

fn refuse_twice(sources: &[Source]) -> Result<(), RegistryError> {
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

/// Refuses definitions that send commands to somebody nobody configured.
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

/// Definitions in memory. Shared by the engine, the timers and the API.
#[derive(Debug, Default)]
pub struct Registry {
    held: RwLock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_hash: HashMap<DefinitionHash, Arc<SagaDefinition>>,
    latest: BTreeMap<String, Arc<SagaDefinition>>,
}

impl Registry {
    /// Holds a registered definition; the highest version of a name is the one that new sagas take.
    pub fn insert(&self, definition: SagaDefinition) -> Arc<SagaDefinition> {
        let definition = Arc::new(definition);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.by_hash
            .insert(definition.hash.clone(), Arc::clone(&definition));
        let newer = held
            .latest
            .get(&definition.name)
            .is_none_or(|latest| latest.version <= definition.version);
        if newer {
            held.latest
                .insert(definition.name.clone(), Arc::clone(&definition));
        }
        definition
    }

    /// Holds a definition for the sagas that are pinned to it; new ones do not take it.
    pub fn insert_pinned(&self, definition: SagaDefinition) -> Arc<SagaDefinition> {
        let definition = Arc::new(definition);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.by_hash
            .insert(definition.hash.clone(), Arc::clone(&definition));
        definition
    }

    /// What a new saga of this name runs.
    pub fn latest(&self, name: &str) -> Option<Arc<SagaDefinition>> {
        self.held
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .latest
            .get(name)
            .cloned()
    }

    /// What a saga is pinned to.
    pub fn by_hash(&self, hash: &DefinitionHash) -> Option<Arc<SagaDefinition>> {
        self.held
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_hash
            .get(hash)
            .cloned()
    }

    /// The newest of every name.
    pub fn all_latest(&self) -> Vec<Arc<SagaDefinition>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.latest.values().cloned().collect()
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

    #[test]
    fn new_sagas_take_the_highest_version_and_old_ones_are_found_by_hash() {
        let registry = Registry::default();
        let source = read(true, None).unwrap().remove(0).definition;
        let mut older = source.clone();
        older.version = 1;
        older.hash = DefinitionHash("older".to_owned());
        let mut newer = source;
        newer.version = 2;
        registry.insert(newer);
        registry.insert(older.clone());
        assert_eq!(registry.latest("place-order").unwrap().version, 2);
        assert_eq!(registry.by_hash(&older.hash).unwrap().version, 1);
    }
}
