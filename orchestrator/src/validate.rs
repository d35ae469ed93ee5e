//! `orchestrator validate PATH…`: checks definitions without starting anything.

use crate::registry::{self, RegistryError, Source};
use saga_core::definition::SagaDefinition;
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "usage: orchestrator validate PATH…

Checks saga definitions without starting anything. A PATH is a file, or a directory of which the files are read that
the orchestrator would read.

Exit status: 0 if all definitions are good, 1 if one is not, 2 if a path cannot be read.";

/// Prints every fault as `file:line: step '…': …`. Exits with 1 if there is any, and with 2 if a path cannot be read or
/// no path is given.
pub fn run(paths: &[String]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match check(paths, &mut out) {
        Ok(code) => code,
        // The reader closed the pipe.
        Err(_closed) => ExitCode::from(2),
    }
}

fn check(paths: &[String], out: &mut impl Write) -> std::io::Result<ExitCode> {
    if paths.is_empty() || paths.iter().any(|path| path == "--help" || path == "-h") {
        writeln!(out, "{USAGE}")?;
        return Ok(ExitCode::from(if paths.is_empty() { 2 } else { 0 }));
    }
    let mut code = 0;
    for path in paths {
        let path = Path::new(path);
        let worst = if path.is_dir() {
            check_directory(path, out)?
        } else {
            check_files(&[path.to_owned()], out)?.0
        };
        code = code.max(worst);
    }
    Ok(ExitCode::from(code))
}

fn check_directory(directory: &Path, out: &mut impl Write) -> std::io::Result<u8> {
    let files = match registry::definitions_in(directory) {
        Ok(files) => files,
        Err(error) => return unreadable(&error, out),
    };
    if files.is_empty() {
        writeln!(out, "{}: {}", directory.display(), registry::NONE_THERE)?;
        return Ok(2);
    }
    let (code, sources) = check_files(&files, out)?;
    match registry::refuse_twice(&sources) {
        Ok(()) => Ok(code),
        Err(error) => {
            writeln!(out, "{}: {error}", directory.display())?;
            Ok(code.max(1))
        }
    }
}

/// Returns the exit status, and the definitions that have no fault of their own.
fn check_files(files: &[PathBuf], out: &mut impl Write) -> std::io::Result<(u8, Vec<Source>)> {
    let mut code = 0;
    let mut sources = Vec::new();
    for path in files {
        let file = path.display().to_string();
        let text = match registry::text_of(path) {
            Ok(text) => text,
            Err(error) => {
                code = code.max(unreadable(&error, out)?);
                continue;
            }
        };
        match SagaDefinition::parse(&file, &text) {
            Ok(definition) => {
                writeln!(
                    out,
                    "{file}: ok: '{}' version {}, {} steps",
                    definition.name,
                    definition.version,
                    definition.steps.len()
                )?;
                sources.push(Source { file, definition });
            }
            Err(faults) => {
                for fault in faults {
                    writeln!(out, "{fault}")?;
                }
                code = code.max(1);
            }
        }
    }
    Ok((code, sources))
}

fn unreadable(error: &RegistryError, out: &mut impl Write) -> std::io::Result<u8> {
    match std::error::Error::source(error) {
        Some(source) => writeln!(out, "{error}: {source}")?,
        None => writeln!(out, "{error}")?,
    }
    Ok(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(files: &[String]) -> (String, ExitCode) {
        let mut out = Vec::new();
        let code = check(files, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), code)
    }

    #[test]
    fn a_broken_definition_is_reported_with_file_line_and_step() {
        let file = std::env::temp_dir().join(format!("validate-{}.yaml", std::process::id()));
        let path = file.display().to_string();
        std::fs::write(
            &file,
            "name: x\nversion: 1\ndeadline: 1h\nsteps:\n  - name: a\n    kind: compensatable\n    participant: p\n    command: c\n",
        )
        .unwrap();
        let (text, code) = printed(std::slice::from_ref(&path));
        std::fs::remove_file(&file).unwrap();
        assert!(
            text.starts_with(&format!("{path}:")) && text.contains("step 'a'"),
            "{text}"
        );
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(1)));
    }

    #[test]
    fn a_path_that_is_not_there_is_no_fault_of_a_definition() {
        let (text, code) = printed(&["/no/such/file".to_owned()]);
        assert!(text.starts_with("/no/such/file cannot be read: "), "{text}");
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }

    #[test]
    fn directories_are_checked_as_the_orchestrator_reads_them() {
        const GOOD: &str = include_str!("../definitions/place-order.yaml");
        let directory = std::env::temp_dir().join(format!("validate-{}", std::process::id()));
        let [good, twice, empty] = ["good", "twice", "empty"].map(|name| directory.join(name));
        for path in [&good, &twice, &empty] {
            std::fs::create_dir_all(path).unwrap();
            std::fs::write(path.join("._a.yaml"), "not a definition").unwrap();
        }
        std::fs::write(good.join("A.YAML"), GOOD).unwrap();
        std::fs::write(twice.join("a.yaml"), GOOD).unwrap();
        std::fs::write(twice.join("b.yaml"), GOOD.replace("24h", "23h")).unwrap();
        let check = |paths: &[&PathBuf], expected: &[&str], status: u8| {
            let paths: Vec<String> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            let (text, code) = printed(&paths);
            for expected in expected {
                assert!(text.contains(expected), "{text}");
            }
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(status)));
        };
        check(&[&good], &["A.YAML: ok: 'place-order'"], 0);
        check(&[&twice], &["is in two files", "a.yaml", "b.yaml"], 1);
        check(&[&empty], &["there is no definition in this directory"], 2);
        check(
            &[&good, &twice, &empty],
            &[
                "A.YAML: ok",
                "is in two files",
                "there is no definition in this directory",
            ],
            2,
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
