//! Log lines of the start: one for each definition, with the version that new sagas take and why.

use super::{Catalog, Registered, Source, that_runs};
use std::collections::BTreeSet;

/// A line of the log at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    /// The version that new sagas take.
    pub version: Option<u32>,
    /// True if the database differs from the files, so that the line is logged as a warning.
    pub warn: bool,
    pub text: String,
}

/// Returns one line for each name that is registered or found in a file, ordered by name.
pub fn what_runs(sources: &[Source], catalog: &Catalog) -> Vec<Line> {
    let versions = catalog.by_name();
    let in_files = sources.iter().map(|source| source.definition.name.as_str());
    let names: BTreeSet<&str> = in_files.chain(versions.keys().copied()).collect();
    names
        .into_iter()
        .map(|name| {
            let in_files = sources
                .iter()
                .filter(|source| source.definition.name == name)
                .max_by_key(|source| source.definition.version);
            let registered = versions.get(name).map_or(&[][..], Vec::as_slice);
            line(name, in_files, registered)
        })
        .collect()
}

fn line(name: &str, in_files: Option<&Source>, registered: &[&Registered]) -> Line {
    let runs = that_runs(registered.iter().copied()).map(|one| one.version);
    let in_files = in_files.map(|source| (source.definition.version, source.file.as_str()));
    let withdrawn = |version: u32| {
        let one = registered.iter().find(|one| one.version == version);
        one.and_then(|one| one.withdrawn.as_ref())
            .map_or_else(String::new, |by| {
                format!(" (by {}: {})", by.actor, by.reason)
            })
    };
    let (warn, text) = match (runs, in_files) {
        (Some(runs), Some((version, file))) if runs == version => {
            (false, format!("version {runs} runs, as in {file}"))
        }
        (Some(runs), Some((version, _))) if runs > version => (
            true,
            format!(
                "version {runs} runs: it is registered in the database, and the files have {version}; to run {version} \
                 again, withdraw {runs}: sagactl definition withdraw {name} --version {runs}"
            ),
        ),
        (Some(runs), Some((version, file))) => (
            true,
            format!(
                "version {runs} runs: version {version} of {file} is withdrawn{}",
                withdrawn(version)
            ),
        ),
        (Some(runs), None) => (
            true,
            format!(
                "version {runs} runs: it is registered in the database, though it is in no file that is read here; to \
                 start no more of it, withdraw it: sagactl definition withdraw {name}"
            ),
        ),
        (None, in_files) => (
            in_files.is_some(),
            format!(
                "nothing runs: every version is withdrawn{}; starts are refused, sagas under way go on",
                registered
                    .first()
                    .map_or_else(String::new, |one| withdrawn(one.version))
            ),
        ),
    };
    Line {
        name: name.to_owned(),
        version: runs,
        warn,
        text: format!("{name}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{self, Withdrawn};
    use saga_core::{
        definition::{DefinitionHash, SagaDefinition},
        ids::Timestamp,
    };

    fn version(number: u32) -> SagaDefinition {
        SagaDefinition {
            version: number,
            hash: DefinitionHash(format!("hash-{number}")),
            ..registry::read(true, None).unwrap().remove(0).definition
        }
    }

    fn check(files: &[u32], registered: &[u32], withdrawn: &[u32], warn: bool, said: &str) {
        let sources: Vec<Source> = files
            .iter()
            .map(|number| Source {
                file: "place-order.yaml".to_owned(),
                definition: version(*number),
            })
            .collect();
        let mut catalog = Catalog::of(1, registered.iter().map(|number| version(*number)));
        for one in &mut catalog.definitions {
            one.withdrawn = withdrawn.contains(&one.version).then(|| Withdrawn {
                at: Timestamp::default(),
                actor: "eve".to_owned(),
                reason: "a mistake".to_owned(),
            });
        }
        let lines = what_runs(&sources, &catalog);
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(line.text.starts_with(said), "{}", line.text);
        assert_eq!(line.warn, warn, "{}", line.text);
    }

    #[test]
    fn each_definition_has_one_line_that_warns_if_database_and_files_differ() {
        check(
            &[2],
            &[1, 2],
            &[],
            false,
            "place-order: version 2 runs, as in place-order.yaml",
        );
        check(
            &[1],
            &[1, 2],
            &[],
            true,
            "place-order: version 2 runs: it is registered in the database, and the files have 1; to run 1 again, \
             withdraw 2: sagactl definition withdraw place-order --version 2",
        );
        check(
            &[],
            &[1],
            &[],
            true,
            "place-order: version 1 runs: it is registered in the database, though it is in no file",
        );
        check(
            &[1, 2],
            &[1, 2],
            &[2],
            true,
            "place-order: version 1 runs: version 2 of place-order.yaml is withdrawn (by eve: a mistake)",
        );
        check(
            &[1],
            &[1],
            &[1],
            true,
            "place-order: nothing runs: every version is withdrawn (by eve: a mistake)",
        );
        check(&[], &[1, 2], &[1, 2], false, "place-order: nothing runs: ");
        // The files were reverted, and the database was, too.
        check(
            &[1],
            &[1, 2],
            &[2],
            false,
            "place-order: version 1 runs, as in place-order.yaml",
        );
    }
}
