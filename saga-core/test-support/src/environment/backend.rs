//! Chooses containers or processes, once for the test binary.

use super::{containers, reaper, unique::unique};
use std::{io::Write, path::PathBuf};
use tokio::sync::OnceCell;

const VARIABLE: &str = "SAGA_TEST_ENV";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Containers,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Only(Backend),
    Best,
}

static CHOSEN: OnceCell<Result<Backend, String>> = OnceCell::const_new();

impl Backend {
    pub(super) async fn chosen() -> Result<Self, String> {
        CHOSEN.get_or_init(choose).await.clone()
    }
}

async fn choose() -> Result<Backend, String> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    match wanted(&text)? {
        Wanted::Only(Backend::Local) => {
            say(&format!(
                "servers for tests: local processes ({VARIABLE}=local)"
            ));
            Ok(Backend::Local)
        }
        Wanted::Only(Backend::Containers) => {
            containers::available()
                .await
                .map_err(|why| format!("{VARIABLE}=containers, but {why}"))?;
            say(&format!(
                "servers for tests: containers ({VARIABLE}=containers)"
            ));
            Ok(Backend::Containers)
        }
        Wanted::Best => Ok(match containers::available().await {
            Ok(()) => {
                say("servers for tests: containers");
                Backend::Containers
            }
            Err(why) => {
                say(&format!("servers for tests: local processes ({why})"));
                Backend::Local
            }
        }),
    }
}

fn wanted(text: &str) -> Result<Wanted, String> {
    match text {
        "" | "auto" => Ok(Wanted::Best),
        "containers" => Ok(Wanted::Only(Backend::Containers)),
        "local" => Ok(Wanted::Only(Backend::Local)),
        other => Err(format!(
            "{VARIABLE} is \"{other}\": it may be \"containers\" or \"local\""
        )),
    }
}

/// Prints a line to the real stderr: libtest captures and hides the output of a passing test.
fn say(line: &str) {
    // A closed stderr must not fail a test.
    drop(writeln!(std::io::stderr(), "[test servers] {line}"));
}

/// Returns a directory for one server's files. When this process ends, it is removed, and processes in it are killed.
pub(super) fn scratch(server: &str) -> PathBuf {
    let path = std::env::temp_dir().join(unique(&format!("saga-test-{server}")));
    let shown = path.display();
    reaper::at_end(&format!(
        "for p in /proc/[0-9]*; do case \"$(readlink \"$p/cwd\")\" in '{shown}'*) kill -9 \"${{p#/proc/}}\";; esac; done; \
         rm -rf '{shown}'"
    ));
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_choice_is_refused() {
        assert_eq!(wanted(""), Ok(Wanted::Best));
        assert_eq!(wanted("local"), Ok(Wanted::Only(Backend::Local)));
        let error = wanted("docker").unwrap_err();
        assert_eq!(
            error,
            "SAGA_TEST_ENV is \"docker\": it may be \"containers\" or \"local\""
        );
    }
}
