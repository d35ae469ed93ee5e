//! `orchestrator validate FILE…`: checks definitions without starting anything.

use saga_core::definition::SagaDefinition;
use std::{io::Write, process::ExitCode};

/// Prints every fault as `file:line: step '…': …`; 1 if there is any, 2 if a file cannot be read or none is named.
pub fn run(files: &[String]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match check(files, &mut out) {
        Ok(code) => code,
        // Nobody reads on.
        Err(_closed) => ExitCode::from(2),
    }
}

fn check(files: &[String], out: &mut impl Write) -> std::io::Result<ExitCode> {
    if files.is_empty() || files.iter().any(|file| file == "--help" || file == "-h") {
        writeln!(out, "usage: orchestrator validate FILE…")?;
        return Ok(ExitCode::from(if files.is_empty() { 2 } else { 0 }));
    }
    let mut code = 0;
    for file in files {
        match std::fs::read_to_string(file) {
            Err(error) => {
                writeln!(out, "{file}: {error}")?;
                code = 2;
            }
            Ok(text) => match SagaDefinition::parse(file, &text) {
                Ok(definition) => writeln!(
                    out,
                    "{file}: ok: '{}' version {}, {} steps",
                    definition.name,
                    definition.version,
                    definition.steps.len()
                )?,
                Err(faults) => {
                    for fault in faults {
                        writeln!(out, "{fault}")?;
                    }
                    code = code.max(1);
                }
            },
        }
    }
    Ok(ExitCode::from(code))
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
    fn a_broken_definition_is_told_with_file_line_and_step() {
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
    fn a_file_that_is_not_there_is_no_fault_of_a_definition() {
        let (_, code) = printed(&["/no/such/file".to_owned()]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }
}
