//! Checks that each metric in the source code has a description.

use std::{collections::BTreeSet, fs, path::Path};

const MACROS: [&str; 3] = ["counter!(", "gauge!(", "histogram!("];

/// Returns the names of metrics that the Rust files below `sources` record and that `described` does not contain.
pub fn undescribed(sources: &Path, described: &[&str]) -> Vec<String> {
    let mut recorded = BTreeSet::new();
    collect(sources, &mut recorded);
    assert!(
        !recorded.is_empty(),
        "no metric below {}",
        sources.display()
    );
    recorded
        .into_iter()
        .filter(|name| !described.contains(&name.as_str()))
        .collect()
}

fn collect(directory: &Path, names: &mut BTreeSet<String>) {
    let entries = fs::read_dir(directory).expect("the sources can be read");
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source can be read");
            names.extend(recorded_in(&text));
        }
    }
}

fn recorded_in(text: &str) -> impl Iterator<Item = String> {
    // `describe_gauge!(` ends like `gauge!(`, but it is a description and no recording.
    let uses = MACROS.iter().flat_map(move |name| {
        text.match_indices(name)
            .filter(|(at, _)| !text.as_bytes()[..*at].ends_with(b"_"))
            .filter_map(|(at, found)| text.get(at + found.len()..))
    });
    uses.filter_map(|rest| {
        let quoted = rest.trim_start().strip_prefix('"')?;
        quoted.split('"').next().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_names_are_found_and_described_ones_are_not() {
        let text = "counter!(\n  \"a_total\", \"label\" => \"x\"); gauge!(\"b\").set(1.0); \
                    describe_gauge!(\"c\", \"help\"); histogram!(name).record(1.0)";
        let found: Vec<String> = recorded_in(text).collect();
        assert_eq!(found, ["a_total", "b"]);
    }
}
