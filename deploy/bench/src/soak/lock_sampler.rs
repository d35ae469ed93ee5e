//! Watches when partitions are dropped, and which sessions wait for a table's lock meanwhile.

use super::aging::Aged;
use crate::{load::InFlight, system::System};
use anyhow::{Context, Result};
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// The time between two looks. Observed times are exact to this plus the duration of a look.
const PERIOD: Duration = Duration::from_millis(25);
/// How much longer to wait for drops: one that did not get its lock is retried with the next round of upkeep, half a
/// minute later.
const PATIENCE: Duration = Duration::from_mins(2);
const EXCLUSIVE: &str = "AccessExclusiveLock";

/// Looks for dropped partitions and for waiting sessions until the load ends.
pub struct LockSampler {
    /// A connection to each database.
    catalogs: BTreeMap<String, PgConnection>,
    /// The partitions that still exist, each behind its database.
    standing: BTreeSet<(String, String)>,
    server: PgConnection,
    flight: Arc<InFlight>,
    seen: Seen,
    /// The time of the last look, when the partitions that are now missing still existed.
    looked_us: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub gone: Vec<Gone>,
    pub waits: Vec<Wait>,
}

/// A partition that was dropped between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub database: String,
    pub partition: String,
    pub stood_us: u64,
    pub missed_us: u64,
}

/// A wait for a lock on a table. It lasts at most from the last look that did not show it until the last look that did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub database: String,
    pub from_us: u64,
    pub to_us: u64,
    /// The most sessions that waited at one time, including the session that wants to drop a partition.
    pub waiters: usize,
    /// The sessions for which the one that wants to drop a partition waited.
    pub behind: BTreeSet<String>,
}

/// A session that waits at one moment: its database, its lock mode, and the sessions that block it.
type Waiter = (String, String, Option<String>);

impl LockSampler {
    pub async fn new(system: &System, flight: Arc<InFlight>, aged: &[Aged]) -> Result<Self> {
        let standing = aged
            .iter()
            .map(|one| (one.database.clone(), one.partition.clone()));
        let standing: BTreeSet<(String, String)> = standing.collect();
        let mut catalogs = BTreeMap::new();
        for (database, _) in &standing {
            if !catalogs.contains_key(database) {
                catalogs.insert(database.clone(), system.connect(database).await?);
            }
        }
        Ok(Self {
            catalogs,
            standing,
            server: system.connect("postgres").await?,
            looked_us: flight.now_us(),
            flight,
            seen: Seen::default(),
        })
    }

    /// Looks until `until_us`, or up to [`PATIENCE`] longer while partitions still exist.
    pub async fn run(mut self, until_us: u64) -> Result<Seen> {
        let patient_us = until_us + PATIENCE.as_micros() as u64;
        while self.looked_us < until_us
            || (self.looked_us < patient_us && !self.standing.is_empty())
        {
            self.look_for_partitions().await?;
            let now_us = self.flight.now_us();
            let waiting = waiting(&mut self.server).await?;
            note(&mut self.seen.waits, &waiting, self.looked_us, now_us);
            self.looked_us = now_us;
            sleep(PERIOD).await;
        }
        Ok(self.seen)
    }

    async fn look_for_partitions(&mut self) -> Result<()> {
        for (database, connection) in &mut self.catalogs {
            let own = self.standing.iter().filter(|(name, _)| name == database);
            let own: Vec<&str> = own.map(|(_, partition)| partition.as_str()).collect();
            // This query takes no lock on the tables, so it never waits.
            let gone: Vec<String> = sqlx::query_scalar(
                "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NULL",
            )
            .bind(own)
            .fetch_all(connection)
            .await
            .with_context(|| format!("the partitions of {database}"))?;
            let missed_us = self.flight.now_us();
            for partition in gone {
                self.standing.remove(&(database.clone(), partition.clone()));
                self.seen.gone.push(Gone {
                    database: database.clone(),
                    partition,
                    stood_us: self.looked_us,
                    missed_us,
                });
            }
        }
        Ok(())
    }
}

async fn waiting(connection: &mut PgConnection) -> Result<Vec<Waiter>> {
    sqlx::query_as(
        "SELECT d.datname::text, l.mode,
                (SELECT string_agg(DISTINCT a.backend_type || ', ' || a.state || ': ' || left(a.query, 60), '; ')
                 FROM pg_stat_activity a WHERE a.pid = ANY(pg_blocking_pids(l.pid)))
         FROM pg_locks l JOIN pg_database d ON d.oid = l.database
         WHERE l.locktype = 'relation' AND NOT l.granted",
    )
    .fetch_all(connection)
    .await
    .context("reading which sessions wait for a table's lock")
}

/// Records who waits now. A wait that was there at the last look continues.
fn note(waits: &mut Vec<Wait>, waiting: &[Waiter], looked_us: u64, now_us: u64) {
    let databases: BTreeSet<&String> = waiting.iter().map(|(database, _, _)| database).collect();
    for database in databases {
        let here = || waiting.iter().filter(|(theirs, _, _)| theirs == database);
        let behind = here()
            .filter(|(_, mode, _)| mode == EXCLUSIVE)
            .filter_map(|(_, _, behind)| behind.clone());
        let last = waits
            .iter_mut()
            .rfind(|wait| wait.database == *database && wait.to_us >= looked_us);
        if let Some(wait) = last {
            wait.to_us = now_us;
            wait.waiters = wait.waiters.max(here().count());
            wait.behind.extend(behind);
        } else {
            waits.push(Wait {
                database: database.clone(),
                from_us: looked_us,
                to_us: now_us,
                waiters: here().count(),
                behind: behind.collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(database: &str, mode: &str, behind: &str) -> Waiter {
        (
            database.to_owned(),
            mode.to_owned(),
            Some(behind.to_owned()),
        )
    }

    #[test]
    fn looks_that_follow_one_another_are_one_wait() {
        let mut waits = Vec::new();
        let drop = waiter("order", EXCLUSIVE, "a batch");
        let insert = waiter("order", "RowExclusiveLock", "the drop");
        note(&mut waits, std::slice::from_ref(&drop), 0, 10);
        note(&mut waits, &[drop, insert.clone()], 10, 20);
        note(&mut waits, &[], 20, 30);
        note(
            &mut waits,
            &[insert, waiter("payment", EXCLUSIVE, "another")],
            30,
            40,
        );
        let found: Vec<(&str, u64, u64, usize, usize)> = waits
            .iter()
            .map(|wait| {
                let database = wait.database.as_str();
                (
                    database,
                    wait.from_us,
                    wait.to_us,
                    wait.waiters,
                    wait.behind.len(),
                )
            })
            .collect();
        let expected = [
            ("order", 0, 20, 2, 1),
            ("order", 30, 40, 1, 0),
            ("payment", 30, 40, 1, 1),
        ];
        assert_eq!(found, expected);
    }
}
