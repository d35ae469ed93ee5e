//! The registered definitions at one generation of the database's definition table, and the version of each that new
//! sagas take.
//! ```text
//!  definition table ─ generation 7 ─▶ Catalog ─▶ Current 7 ─ decides starts ─▶ START compares: still generation 7?
//! ```
//!
//! The database determines which version a new saga takes, so that all processes agree. Each registration, withdrawal
//! and restoration raises the generation. A batch with a start reads the generation along with its rows, and the
//! statement that writes the start compares it again.

use crate::engine::settings::Participant;
use saga_core::{
    definition::{DefinitionHash, SagaDefinition},
    ids::Timestamp,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

/// The withdrawal of a version: by whom, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    pub at: Timestamp,
    pub actor: String,
    pub reason: String,
}

/// A version of a definition, as it is registered in the database.
#[derive(Clone, Debug)]
pub struct Registered {
    pub name: String,
    pub version: u32,
    pub hash: DefinitionHash,
    pub registered_at: Timestamp,
    pub withdrawn: Option<Withdrawn>,
    /// The parsed definition, or the reason why this release cannot read it: a later release has registered it.
    pub definition: Result<Arc<SagaDefinition>, String>,
}

/// All registered definitions.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Generation of the definition table.
    pub generation: i64,
    /// Registered versions, ordered by name and then by version.
    pub definitions: Vec<Registered>,
    /// Topics and groups of participants, as registered by the processes that are configured with them.
    pub participants: BTreeMap<String, Participant>,
}

impl Catalog {
    /// Makes a catalog of definitions that are not withdrawn. For tests and the simulation.
    pub fn of(generation: i64, definitions: impl IntoIterator<Item = SagaDefinition>) -> Self {
        let definitions = definitions
            .into_iter()
            .map(|definition| Registered {
                name: definition.name.clone(),
                version: definition.version,
                hash: definition.hash.clone(),
                registered_at: Timestamp::default(),
                withdrawn: None,
                definition: Ok(Arc::new(definition)),
            })
            .collect();
        Self {
            generation,
            definitions,
            participants: BTreeMap::new(),
        }
    }

    /// Returns the registered versions by name, highest version first.
    pub fn by_name(&self) -> BTreeMap<&str, Vec<&Registered>> {
        let mut names: BTreeMap<&str, Vec<&Registered>> = BTreeMap::new();
        for one in &self.definitions {
            names.entry(&one.name).or_default().push(one);
        }
        for versions in names.values_mut() {
            versions.sort_unstable_by_key(|one| std::cmp::Reverse(one.version));
        }
        names
    }
}

/// Returns the version that new sagas take: the highest that is registered and not withdrawn.
pub fn that_runs<'a>(versions: impl IntoIterator<Item = &'a Registered>) -> Option<&'a Registered> {
    versions
        .into_iter()
        .filter(|one| one.withdrawn.is_none())
        .max_by_key(|one| one.version)
}

/// The outcome of choosing a version for a start.
#[derive(Clone, Debug)]
pub enum Choice {
    Runs(Arc<SagaDefinition>),
    /// Every version is withdrawn.
    Withdrawn {
        /// By whom and why the last withdrawal was made.
        why: String,
        /// The highest version, with which a saga continues that was live before and is no longer known.
        last: Option<Arc<SagaDefinition>>,
    },
    /// The version that runs was registered by a later release. Only a process of that release can start sagas of it.
    Unreadable(String),
}

/// The versions that new sagas take, at one generation of the definition table.
#[derive(Debug)]
pub struct Current {
    pub generation: i64,
    by_name: BTreeMap<String, Choice>,
}

impl Default for Current {
    /// Returns the state before the first read. No table has the generation -1.
    fn default() -> Self {
        Self {
            generation: -1,
            by_name: BTreeMap::new(),
        }
    }
}

impl Current {
    fn of(catalog: &Catalog) -> Self {
        let by_name = catalog
            .by_name()
            .into_iter()
            .filter_map(|(name, versions)| Some((name.to_owned(), choose(&versions)?)))
            .collect();
        Self {
            generation: catalog.generation,
            by_name,
        }
    }

    /// Returns the choice for a definition, or `None` if no version of this name was ever registered.
    pub fn choose(&self, name: &str) -> Option<&Choice> {
        self.by_name.get(name)
    }

    /// Returns every definition that new sagas can take in this process, by name.
    pub fn running(&self) -> impl Iterator<Item = &Arc<SagaDefinition>> {
        self.by_name.values().filter_map(|choice| match choice {
            Choice::Runs(definition) => Some(definition),
            Choice::Withdrawn { .. } | Choice::Unreadable(_) => None,
        })
    }
}

fn choose(versions: &[&Registered]) -> Option<Choice> {
    let Some(runs) = that_runs(versions.iter().copied()) else {
        let last = versions.first()?;
        let withdrawn = versions
            .iter()
            .filter_map(|one| Some((one.withdrawn.as_ref()?, one.version)));
        let (by, version) = withdrawn.max_by_key(|(by, version)| (by.at, *version))?;
        let why = format!(
            "every version of definition '{}' is withdrawn; version {version} by {} at {}: {}",
            last.name,
            by.actor,
            by.at.format("%Y-%m-%dT%H:%M:%SZ"),
            by.reason
        );
        return Some(Choice::Withdrawn {
            why,
            last: last.definition.clone().ok(),
        });
    };
    Some(match &runs.definition {
        Ok(definition) => Choice::Runs(Arc::clone(definition)),
        Err(why) => Choice::Unreadable(format!(
            "definition '{}' version {} was registered by a later release, and this one cannot read it: {why}",
            runs.name, runs.version
        )),
    })
}

/// The definitions in memory. The engine, the timers and the API share them.
#[derive(Debug, Default)]
pub struct Registry {
    held: RwLock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_hash: HashMap<DefinitionHash, Arc<SagaDefinition>>,
    current: Arc<Current>,
}

impl Registry {
    /// Holds the catalog that was read last. Earlier versions stay in memory, since sagas are pinned to them.
    pub fn learn(&self, catalog: &Catalog) -> Arc<Current> {
        let current = Arc::new(Current::of(catalog));
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        for one in &catalog.definitions {
            if let Ok(definition) = &one.definition {
                held.by_hash
                    .insert(one.hash.clone(), Arc::clone(definition));
            }
        }
        held.current = Arc::clone(&current);
        current
    }

    /// Returns the versions that new sagas take, by the catalog that this process read last.
    pub fn current(&self) -> Arc<Current> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&held.current)
    }

    /// Returns the definition that a saga is pinned to.
    pub fn by_hash(&self, hash: &DefinitionHash) -> Option<Arc<SagaDefinition>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.by_hash.get(hash).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn versions(numbers: &[u32]) -> Catalog {
        let shipped = registry::read(true, None).unwrap().remove(0).definition;
        let definitions = numbers.iter().map(|number| SagaDefinition {
            version: *number,
            hash: DefinitionHash(format!("hash-{number}")),
            ..shipped.clone()
        });
        Catalog::of(1, definitions)
    }

    fn withdraw(catalog: &mut Catalog, version: u32) {
        withdraw_at(catalog, version, Timestamp::default());
    }

    fn withdraw_at(catalog: &mut Catalog, version: u32, at: Timestamp) {
        for one in &mut catalog.definitions {
            if one.version == version {
                one.withdrawn = Some(Withdrawn {
                    at,
                    actor: "somebody".to_owned(),
                    reason: "it charges twice".to_owned(),
                });
            }
        }
    }

    fn check(catalog: &Catalog, expected: Option<u32>) {
        let registry = Registry::default();
        let current = registry.learn(catalog);
        let chosen = match current.choose("place-order") {
            Some(Choice::Runs(definition)) => Some(definition.version),
            Some(Choice::Withdrawn { .. } | Choice::Unreadable(_)) | None => None,
        };
        assert_eq!(chosen, expected);
        for one in &catalog.definitions {
            assert_eq!(registry.by_hash(&one.hash).unwrap().version, one.version);
        }
    }

    #[test]
    fn new_sagas_take_the_highest_version_that_is_not_withdrawn_and_old_ones_are_found_by_hash() {
        let mut catalog = versions(&[3, 1, 2]);
        check(&catalog, Some(3));
        withdraw(&mut catalog, 3);
        check(&catalog, Some(2));
        withdraw(&mut catalog, 1);
        check(&catalog, Some(2));
        withdraw(&mut catalog, 2);
        check(&catalog, None);
    }

    #[test]
    fn the_last_withdrawal_is_the_one_that_is_told() {
        let mut catalog = versions(&[1, 2]);
        withdraw_at(&mut catalog, 2, Timestamp::default());
        let later = Timestamp::default() + chrono::Duration::hours(1);
        withdraw_at(&mut catalog, 1, later);
        let current = Registry::default().learn(&catalog);
        let Some(Choice::Withdrawn { why, last }) = current.choose("place-order") else {
            panic!("{current:?}");
        };
        assert!(
            why.contains("version 1 by somebody at 1970-01-01T01:00:00Z"),
            "{why}"
        );
        assert_eq!(last.as_ref().unwrap().version, 2);
    }

    #[test]
    fn a_definition_that_is_withdrawn_says_by_whom_and_why_and_an_unknown_one_is_unknown() {
        let mut catalog = versions(&[1]);
        withdraw(&mut catalog, 1);
        let current = Registry::default().learn(&catalog);
        let Some(Choice::Withdrawn { why, .. }) = current.choose("place-order") else {
            panic!("{current:?}");
        };
        assert!(
            why.contains("version 1 by somebody at 1970-01-01T00:00:00Z: it charges twice"),
            "{why}"
        );
        assert!(current.choose("none").is_none());
    }

    #[test]
    fn a_version_that_a_later_release_registered_is_not_passed_over_for_an_older_one() {
        let mut catalog = versions(&[1, 2]);
        catalog.definitions[1].definition = Err("unknown field".to_owned());
        let current = Registry::default().learn(&catalog);
        assert!(
            matches!(current.choose("place-order"), Some(Choice::Unreadable(_))),
            "{current:?}"
        );
    }
}
