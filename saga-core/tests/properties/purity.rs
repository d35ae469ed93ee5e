//! Checks that `saga-core` does no I/O and uses no clock and no randomness: none of its dependencies does, and its
//! sources call none of the functions of the standard library and of `uuid` that do.

use std::{fs, path::Path, process::Command};

const IMPURE_CRATES: [&str; 8] = [
    "tokio", "sqlx", "rdkafka", "reqwest", "hyper", "mio", "socket2", "rand",
];

const IMPURE_CALLS: [&str; 8] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "new_v4",
    "now_v7",
];

#[test]
fn the_core_depends_on_nothing_that_does_input_or_output() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "saga-core", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--offline"])
        .args(["--all-features", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        names.contains(&"serde"),
        "not the tree of saga-core: {tree}"
    );
    for name in IMPURE_CRATES {
        assert!(!names.contains(&name), "saga-core depends on {name}");
    }
}

#[test]
fn the_core_calls_nothing_that_does_input_or_output() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for call in IMPURE_CALLS {
                assert!(!text.contains(call), "{} uses {call}", path.display());
            }
        }
    }
    assert!(files > 10, "only {files} files found");
}
