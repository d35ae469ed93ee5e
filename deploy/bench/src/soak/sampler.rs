//! What is looked at every minute, beside what the load generator sees anyway.

use crate::{
    load::{Flight, Percentiles},
    measure::{Cost, Memory, Probe, Snapshot, Watched, descriptors},
    stage::Bench,
    system::database,
};
use anyhow::{Context, Result};
use saga_e2e::system::Service;
use serde::Serialize;
use sqlx::PgConnection;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::sleep_until;

/// Tables whose size must not depend on how many sagas have ended: rows come and go, or are updated for ever.
const LIVE: [(Service, &[&str]); 4] = [
    (Service::Orchestrator, &["saga", "floor"]),
    (Service::Order, &["outbox", "saga_floor"]),
    (Service::Inventory, &["stock", "saga_floor"]),
    (Service::Payment, &["intent", "saga_floor"]),
];
const MIB: f64 = (1 << 20) as f64;

/// Takes readings while somebody else makes load.
pub struct Sampler {
    probe: Probe,
    watched: Vec<Watched>,
    databases: Vec<String>,
    /// Of the whole server.
    server: PgConnection,
    connections: Vec<(Service, &'static [&'static str], PgConnection)>,
    flight: Arc<Flight>,
    interval: Duration,
}

/// Everything as it stands at one moment.
pub struct Reading {
    pub at_us: u64,
    snapshot: Snapshot,
    descriptors: BTreeMap<String, u64>,
    tables: BTreeMap<String, Table>,
    database_bytes: i64,
}

/// A live table, with its indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    pub mib: f64,
    /// As Postgres estimates them.
    pub dead_rows: i64,
    /// Since the server was started.
    pub autovacuums: i64,
}

/// One minute.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// From the first reading to the end of this minute.
    pub seconds: f64,
    pub sagas_a_second: f64,
    /// From the 201 to the end, of the sagas that ended in it.
    pub latency: Percentiles,
    /// See [`Stall`](crate::load::Stall).
    pub longest_stall_ms: Option<f64>,
    /// Its memory is what was there at the end.
    pub cost: Cost,
    pub descriptors: BTreeMap<String, u64>,
    pub tables: BTreeMap<String, Table>,
    pub databases_mib: f64,
}

impl Sampler {
    pub async fn new(bench: &Bench<'_>, interval: Duration) -> Result<Self> {
        let probe = bench.system.probe().await?;
        let mut connections = Vec::new();
        for (service, tables) in LIVE {
            let connection = bench.system.connect(&database(service)).await?;
            connections.push((service, tables, connection));
        }
        Ok(Self {
            watched: probe.watched.clone(),
            databases: probe.databases.clone(),
            probe,
            server: bench.system.connect("postgres").await?,
            connections,
            flight: Arc::clone(&bench.flight),
            interval,
        })
    }

    /// At the beginning, and whenever an interval is over.
    pub async fn run(mut self, from_us: u64, until_us: u64) -> Result<Vec<Reading>> {
        let interval_us = self.interval.as_micros() as u64;
        let mut readings = Vec::new();
        let mut at_us = from_us;
        while at_us <= until_us {
            sleep_until(self.flight.instant(at_us).into()).await;
            readings.push(self.read().await?);
            at_us += interval_us;
        }
        Ok(readings)
    }

    async fn read(&mut self) -> Result<Reading> {
        let snapshot = self.probe.snapshot().await?;
        let at_us = self.flight.now_us();
        let mut tables = BTreeMap::new();
        for (service, names, connection) in &mut self.connections {
            let found = sizes(connection, names).await?.into_iter();
            tables.extend(found.map(|(name, table)| (format!("{}.{name}", service.name()), table)));
        }
        Ok(Reading {
            at_us,
            snapshot,
            descriptors: descriptors(&self.watched),
            tables,
            database_bytes: database_bytes(&mut self.server, &self.databases).await?,
        })
    }
}

async fn sizes(connection: &mut PgConnection, names: &[&str]) -> Result<Vec<(String, Table)>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT relname::text, pg_total_relation_size(relid), n_dead_tup, autovacuum_count
         FROM pg_stat_user_tables WHERE relname = ANY($1)",
    )
    .bind(names)
    .fetch_all(connection)
    .await
    .context("the sizes of the live tables")?;
    let tables = rows
        .into_iter()
        .map(|(name, bytes, dead_rows, autovacuums)| {
            let table = Table {
                mib: bytes as f64 / MIB,
                dead_rows,
                autovacuums,
            };
            (name, table)
        });
    Ok(tables.collect())
}

async fn database_bytes(connection: &mut PgConnection, databases: &[String]) -> Result<i64> {
    sqlx::query_scalar(
        "SELECT SUM(pg_database_size(oid))::bigint FROM pg_database WHERE datname = ANY($1)",
    )
    .bind(databases)
    .fetch_one(connection)
    .await
    .context("the size of the databases")
}

impl Sample {
    pub fn new(
        before: &Reading,
        after: &Reading,
        began_us: u64,
        latency: Percentiles,
        longest_stall_us: Option<u64>,
    ) -> Self {
        let seconds = (after.at_us - before.at_us) as f64 / 1e6;
        Self {
            seconds: (after.at_us - began_us) as f64 / 1e6,
            sagas_a_second: latency.count as f64 / seconds,
            longest_stall_ms: longest_stall_us.map(|us| us as f64 / 1e3),
            cost: Cost::between(
                &before.snapshot,
                &after.snapshot,
                &Memory::default(),
                latency.count,
            ),
            latency,
            descriptors: after.descriptors.clone(),
            tables: after.tables.clone(),
            databases_mib: after.database_bytes as f64 / MIB,
        }
    }
}
