//! S: how many sagas a second Postgres alone can carry, by the minimum SQL of a hundred sagas at a time.
//!
//! Driven by pgbench where there is one, else by a loop of our own that costs a little more.

use crate::system::System;
use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{process::Command, task::JoinSet};

const TABLES: &str = include_str!("tables.sql");
pub const DATABASE: &str = "saga_bench_floor";
/// Of one pass of a script.
const BATCH: f64 = 100.0;
/// Connections of each try; the best counts. A connection that waits for its commit leaves the cores to the others.
const CONNECTIONS: [u32; 2] = [4, 8];
/// Ids of one connection: far more than a try uses.
const IDS_OF_A_CONNECTION: i64 = 1_000_000_000;
/// Connections of one try, at most.
const CONNECTIONS_MAX: i64 = 1_000;

/// The least SQL of a path through a saga.
#[derive(Clone, Copy, Debug)]
pub struct Script(&'static str);

pub const CONFIRM: Script = Script(include_str!("confirm.sql"));
pub const DECLINE: Script = Script(include_str!("decline.sql"));

impl Script {
    /// One after the other, without comments.
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

    /// With the ids that each client and each pass has to itself. Variables keep their values from pass to pass.
    fn for_pgbench(self, attempt: i64) -> String {
        let first = attempt * CONNECTIONS_MAX;
        format!(
            "\\set pass :pass + 1\n\
             \\set base ({first} + :client_id) * {IDS_OF_A_CONNECTION} + :pass * 100\n{};\n",
            self.statements().join(";\n")
        )
    }
}

/// Sagas a second, and by what they were driven.
pub async fn measure(
    system: &System,
    script: Script,
    time: Duration,
) -> Result<(f64, &'static str)> {
    let pgbench = pgbench(system).await;
    let mut best: f64 = 0.0;
    for (attempt, connections) in (1..).zip(CONNECTIONS) {
        make_tables(system).await?;
        let time = time / CONNECTIONS.len() as u32;
        let found = match &pgbench {
            Some(program) => {
                by_pgbench(system, program, script, attempt, connections, time).await?
            }
            None => by_ourselves(system, script, attempt, connections, time).await?,
        };
        best = best.max(found);
    }
    let driver = if pgbench.is_some() {
        "pgbench"
    } else {
        "own driver"
    };
    Ok((best, driver))
}

/// Anew for each try, so that none finds what another has left.
async fn make_tables(system: &System) -> Result<()> {
    let mut superuser = system.connect("postgres").await?;
    for statement in [
        format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"),
        format!("CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut superuser)
            .await?;
    }
    superuser.close().await?;
    let mut connection = system.connect(DATABASE).await?;
    sqlx::raw_sql(TABLES)
        .execute(&mut connection)
        .await
        .context("the floor's tables")?;
    Ok(connection.close().await?)
}

/// Of the server's own installation, else the one in `PATH`.
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
    let file = system.scratch("floor.sql");
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
        .envs(system.libpq_environment(DATABASE))
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

/// `tps = 123.456 (without initial connection time)`
fn transactions_a_second(output: &str) -> Option<f64> {
    let rest = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

async fn by_ourselves(
    system: &System,
    script: Script,
    attempt: i64,
    connections: u32,
    time: Duration,
) -> Result<f64> {
    let statements: Vec<String> = script
        .statements()
        .iter()
        .map(|statement| statement.replace(":base", "$1"))
        .collect();
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for client in 0..i64::from(connections) {
        let first = (attempt * CONNECTIONS_MAX + client) * IDS_OF_A_CONNECTION;
        clients.spawn(passes(
            system.connect(DATABASE).await?,
            statements.clone(),
            first,
            began + time,
        ));
    }
    let mut sum = 0;
    while let Some(done) = clients.join_next().await {
        sum += done.context("a connection of the floor")??;
    }
    Ok(f64::from(sum) * BATCH / began.elapsed().as_secs_f64())
}

async fn passes(
    mut connection: PgConnection,
    statements: Vec<String>,
    first: i64,
    until: Instant,
) -> Result<u32, sqlx::Error> {
    let mut done = 0;
    while Instant::now() < until {
        let base = first + i64::from(done) * BATCH as i64;
        for statement in &statements {
            let query = sqlx::query(AssertSqlSafe(statement.clone()));
            let query = if statement.contains("$1") {
                query.bind(base)
            } else {
                query
            };
            query.execute(&mut connection).await?;
        }
        done += 1;
    }
    Ok(done)
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
