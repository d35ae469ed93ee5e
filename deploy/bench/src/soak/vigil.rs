//! Watches partitions go, and who waits for a table's lock meanwhile.

use super::aging::Aged;
use crate::{load::Flight, system::System};
use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::sleep;

/// How exact the times are, beside how long the looks take.
const PERIOD: Duration = Duration::from_millis(25);
/// A drop that did not get its lock is tried again with the next round of upkeep, half a minute later.
const PATIENCE: Duration = Duration::from_mins(2);
const EXCLUSIVE: &str = "AccessExclusiveLock";

/// See the module.
pub struct Vigil {
    /// By database, with the partitions that still stand.
    catalogs: BTreeMap<String, (PgConnection, BTreeSet<String>)>,
    server: PgConnection,
    flight: Arc<Flight>,
    seen: Seen,
    /// The last look, which is when what is gone now still stood.
    looked_us: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub gone: Vec<Gone>,
    pub waits: Vec<Wait>,
}

/// A partition that went, between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub database: String,
    pub partition: String,
    pub stood_us: u64,
    pub missed_us: u64,
}

/// Somebody waited for a lock on a table: at most since the last look that did not show it, until the last one that did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    pub database: String,
    pub from_us: u64,
    pub to_us: u64,
    /// The most at one time, whoever wants to drop a partition included.
    pub waiters: usize,
    /// Whom the one waited for that wants to drop a partition.
    pub behind: BTreeSet<String>,
}

/// Who waits at one moment: the database, how, and for whom.
type Waiter = (String, String, Option<String>);

impl Vigil {
    pub async fn new(system: &System, flight: Arc<Flight>, aged: &[Aged]) -> Result<Self> {
        let mut catalogs: BTreeMap<String, (PgConnection, BTreeSet<String>)> = BTreeMap::new();
        for one in aged {
            if !catalogs.contains_key(&one.database) {
                let connection = system.connect(&one.database).await?;
                catalogs.insert(one.database.clone(), (connection, BTreeSet::new()));
            }
            if let Some((_, stand)) = catalogs.get_mut(&one.database) {
                stand.insert(one.partition.clone());
            }
        }
        Ok(Self {
            catalogs,
            server: system.connect("postgres").await?,
            looked_us: flight.now_us(),
            flight,
            seen: Seen::default(),
        })
    }

    /// Until that time, or [`PATIENCE`] longer while partitions still stand.
    pub async fn run(mut self, until_us: u64) -> Result<Seen> {
        let patient_us = until_us + PATIENCE.as_micros() as u64;
        while self.looked_us < until_us || (self.looked_us < patient_us && self.some_stand()) {
            self.look_for_partitions().await?;
            let now_us = self.flight.now_us();
            let waiting = waiting(&mut self.server).await?;
            note(&mut self.seen.waits, &waiting, self.looked_us, now_us);
            self.looked_us = now_us;
            sleep(PERIOD).await;
        }
        Ok(self.seen)
    }

    fn some_stand(&self) -> bool {
        self.catalogs.values().any(|(_, stand)| !stand.is_empty())
    }

    async fn look_for_partitions(&mut self) -> Result<()> {
        for (database, (connection, stand)) in &mut self.catalogs {
            if stand.is_empty() {
                continue;
            }
            let names: Vec<String> = stand.iter().cloned().collect();
            // Takes no lock, so it waits for nobody.
            let gone: Vec<String> = sqlx::query_scalar(
                "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NULL",
            )
            .bind(names)
            .fetch_all(connection)
            .await
            .with_context(|| format!("the partitions of {database}"))?;
            let now_us = self.flight.now_us();
            for partition in gone {
                stand.remove(&partition);
                self.seen.gone.push(Gone {
                    database: database.clone(),
                    partition,
                    stood_us: self.looked_us,
                    missed_us: now_us,
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
    .context("who waits for a table")
}

/// A wait goes on if it was there at the last look, too.
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
