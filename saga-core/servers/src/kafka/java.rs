//! Finds a Java that can run Kafka.

use crate::process;
use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

pub(super) const OLDEST: u32 = 17;

#[derive(Debug)]
pub(super) struct Java {
    pub program: PathBuf,
}

/// The reason why no Java can be used.
#[derive(Debug)]
pub(super) struct NoJava {
    too_old: Vec<(PathBuf, u32)>,
}

impl fmt::Display for NoJava {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.too_old.first() {
            None => f.write_str("no Java was found in JAVA_HOME or PATH"),
            Some((program, version)) => {
                write!(
                    f,
                    "{} is Java {version}, which is too old",
                    program.display()
                )
            }
        }
    }
}

/// Returns the first Java that is new enough: in `asked_for`, `JAVA_HOME`, then `PATH`.
pub(super) async fn find(asked_for: Option<&Path>) -> Result<Java, NoJava> {
    let homes = asked_for.map(Path::to_owned).into_iter();
    let homes = homes.chain(env::var_os("JAVA_HOME").map(PathBuf::from));
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = homes
        .map(|home| home.join("bin"))
        .chain(env::split_paths(&path));
    let mut too_old = Vec::new();
    for program in candidates.map(|directory| directory.join("java")) {
        if !program.is_file() {
            continue;
        }
        match version(&program).await {
            Some(version) if version >= OLDEST => {
                // A launcher in PATH may be a link, even to another link; the process list shows the real program.
                let program = program.canonicalize().unwrap_or(program);
                return Ok(Java { program });
            }
            Some(version) => too_old.push((program, version)),
            None => {}
        }
    }
    Err(NoJava { too_old })
}

async fn version(program: &Path) -> Option<u32> {
    let mut command = Command::new(program);
    command.arg("-version");
    let output = process::run_tool("java -version", command, None)
        .await
        .ok()?;
    parse(&String::from_utf8_lossy(&output.stderr))
}

/// Reads a text such as `openjdk version "17.0.15" 2025-04-15`, `java version "1.8.0_392"` or
/// `openjdk version "26-ea"`.
fn parse(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version \"")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read() {
        let check = |text: &str, expected| assert_eq!(parse(text), expected, "{text}");
        check(
            "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime",
            Some(17),
        );
        check("java version \"1.8.0_392\"", Some(8));
        check(
            "Picked up JAVA_TOOL_OPTIONS: -Dx\nopenjdk version \"26-ea\" 2026-03-17",
            Some(26),
        );
        check("bash: java: command not found", None);
    }
}
