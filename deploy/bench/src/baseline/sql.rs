//! S: how many sagas a second Postgres alone can carry, by the minimum SQL of a hundred sagas at a time.
//!
//! The load comes from pgbench.

use crate::{
    progress::say,
    system::{self, BASELINE_DATABASE, System},
};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

const TABLES: &str = include_str!("tables.sql");
/// The number of sagas in one pass of a script.
const BATCH: f64 = 100.0;
/// The number of connections in each attempt; the best attempt counts. While a connection waits for its commit, the
/// others use the cores.
const CONNECTIONS: [u32; 2] = [4, 8];
/// The number of ids for each connection: far more than an attempt uses.
const IDS_OF_A_CONNECTION: i64 = 1_000_000_000;
/// The most connections of one attempt.
const CONNECTIONS_MAX: i64 = 1_000;

/// The minimum SQL of a path through a saga.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static str);

pub const CONFIRM: Script = Script(include_str!("confirm.sql"));
pub const DECLINE: Script = Script(include_str!("decline.sql"));

impl Script {
    /// Returns the statements in order, without comments.
    fn statements(self) -> Vec<String> {
        let lines: Vec<&str> = self
            .0
            .lines()
            .filter(|line| !line.starts_with("--"))
            .collect();
        let statements = lines.join("\n");
        let statements = statements
            .split(";\n")
            .map(|one| one.trim().trim_end_matches(';'));
        statements
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Returns the script for pgbench, with separate ids for each client and each pass. Variables keep their values
    /// from pass to pass.
    fn for_pgbench(self, attempt: i64) -> String {
        let first = attempt * CONNECTIONS_MAX;
        format!(
            "\\set pass :pass + 1\n\
             \\set base ({first} + :client_id) * {IDS_OF_A_CONNECTION} + :pass * 100\n{};\n",
            self.statements().join(";\n")
        )
    }
}

/// Returns the sagas a second; `None` if there is no pgbench.
pub async fn measure(system: &System, script: Script, time: Duration) -> Result<Option<f64>> {
    let Some(program) = pgbench(system).await else {
        say("  the baseline is left out: pgbench is not installed");
        return Ok(None);
    };
    let mut best: f64 = 0.0;
    for (attempt, connections) in (1..).zip(CONNECTIONS) {
        make_tables(system).await?;
        let time = time / CONNECTIONS.len() as u32;
        let found = by_pgbench(system, &program, script, attempt, connections, time).await?;
        best = best.max(found);
    }
    Ok(Some(best))
}

/// Creates the database and its tables anew for each attempt, so that no attempt finds rows of an earlier one.
async fn make_tables(system: &System) -> Result<()> {
    let anew = [system::drop_database, system::create].map(|of| of(BASELINE_DATABASE));
    system.execute("postgres", anew).await?;
    system.execute(BASELINE_DATABASE, [TABLES.to_owned()]).await
}

/// Returns the pgbench of the server's own installation, or else the one in `PATH`.
async fn pgbench(system: &System) -> Option<PathBuf> {
    let own = system
        .postgres_program("pgbench")
        .filter(|path| path.exists());
    let program = own.unwrap_or_else(|| PathBuf::from("pgbench"));
    let asked = Command::new(&program)
        .arg("--version")
        .output()
        .await
        .ok()?;
    asked.status.success().then_some(program)
}

async fn by_pgbench(
    system: &System,
    program: &Path,
    script: Script,
    attempt: i64,
    connections: u32,
    time: Duration,
) -> Result<f64> {
    let file = system.scratch("baseline.sql");
    std::fs::write(&file, script.for_pgbench(attempt))?;
    let mut command = Command::new(program);
    command
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--define=pass=0",
            "--jobs=1",
        ])
        .arg(format!("--client={connections}"))
        .arg(format!("--time={}", time.as_secs().max(1)))
        .arg("--file")
        .arg(&file)
        .envs(system.libpq_environment(BASELINE_DATABASE))
        .kill_on_drop(true);
    let output = command.output().await.context("running pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match transactions_a_second(&text) {
        Some(passes) if output.status.success() => Ok(passes * BATCH),
        Some(_) | None => bail!(
            "pgbench failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Parses the line `tps = 123.456 (without initial connection time)`.
fn transactions_a_second(output: &str) -> Option<f64> {
    let rest = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_whole_transactions_and_every_statement_is_about_the_batch() {
        for script in [CONFIRM, DECLINE] {
            let statements = script.statements();
            let count = |text: &str| statements.iter().filter(|one| *one == text).count();
            assert!(count("BEGIN") >= 9 && count("BEGIN") == count("COMMIT"));
            let work = statements
                .iter()
                .filter(|one| *one != "BEGIN" && *one != "COMMIT");
            for statement in work {
                assert!(statement.contains(":base"), "{statement}");
                assert!(!statement.contains("--"), "{statement}");
            }
        }
    }

    #[test]
    fn no_two_clients_or_attempts_share_an_id() {
        let first = CONFIRM.for_pgbench(1);
        assert!(first.contains("\\set base (1000 + :client_id) * 1000000000 + :pass * 100\n"));
        assert!(CONFIRM.for_pgbench(2).contains("(2000 + :client_id)"));
        assert!(first.ends_with("COMMIT;\n"));
    }

    #[test]
    fn pgbench_is_understood() {
        let output = "number of transactions actually processed: 12\nlatency average = 1.0 ms\n\
                      tps = 171.250 (without initial connection time)\n";
        assert_eq!(transactions_a_second(output), Some(171.25));
        assert_eq!(transactions_a_second("pgbench: fatal"), None);
    }
}
