//! Takes the readings of every minute that the load generator does not have anyway, and computes the minute's figures.

use super::drift::{CPU, DESCRIPTORS, Figure, MEMORY, OF_ALL, STORAGE, TIME};
use crate::{
    bench::Bench,
    load::{InFlight, Stall, Trace},
    measure::{Cost, LOAD_GENERATOR, Memory, Probe, Snapshot, descriptors},
};
use anyhow::{Context, Result};
use saga_harness::system::Service;
use sqlx::PgConnection;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::sleep_until;

/// Tables whose size must not depend on how many sagas have ended: their rows come and go, or are updated forever.
const LIVE: [(Service, &[&str]); 4] = [
    (Service::Orchestrator, &["saga", "floor"]),
    (Service::Order, &["outbox", "saga_floor"]),
    (Service::Inventory, &["stock", "saga_floor"]),
    (Service::Payment, &["intent", "saga_floor"]),
];
/// Sizes include indexes. Postgres estimates the number of dead rows.
const SIZES: &str = "
SELECT relname::text, pg_total_relation_size(relid) / 1048576.0::float8, n_dead_tup::float8, autovacuum_count::float8
FROM pg_stat_user_tables WHERE relname = ANY($1)";
const MIB: f64 = (1 << 20) as f64;

/// Takes readings while load is generated elsewhere.
pub struct Sampler {
    probe: Probe,
    connections: Vec<(Service, &'static [&'static str], PgConnection)>,
    flight: Arc<InFlight>,
    interval: Duration,
}

/// All counters at one moment.
pub struct Reading {
    at_us: u64,
    snapshot: Snapshot,
    descriptors: BTreeMap<String, u64>,
    tables: Vec<Figure>,
}

impl Sampler {
    pub async fn new(bench: &Bench<'_>, interval: Duration) -> Result<Self> {
        let mut connections = Vec::new();
        for (service, tables) in LIVE {
            let connection = bench.system.database_of(service).await?;
            connections.push((service, tables, connection));
        }
        Ok(Self {
            probe: bench.system.probe().await?,
            connections,
            flight: Arc::clone(&bench.flight),
            interval,
        })
    }

    /// Takes readings at `from_us` and at the end of each interval.
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
        let mut tables = Vec::new();
        for (service, names, connection) in &mut self.connections {
            let rows: Vec<(String, f64, f64, f64)> = sqlx::query_as(SIZES)
                .bind(*names)
                .fetch_all(connection)
                .await
                .context("the sizes of the live tables")?;
            for (name, mib, dead_rows, autovacuums) in rows {
                let name = format!("{}.{name}", service.name());
                tables.push(Figure::new(STORAGE, format!("{name}, MiB"), mib));
                let column = format!("{name}, dead rows");
                tables.push(Figure::new(STORAGE, column, dead_rows));
                let column = format!("{name}, autovacuums");
                tables.push(Figure::new(STORAGE, column, autovacuums));
            }
        }
        Ok(Reading {
            at_us,
            snapshot,
            descriptors: descriptors(&self.probe.watched),
            tables,
        })
    }
}

/// Returns the figures of each time between two readings.
pub fn samples(readings: &[Reading], trace: &Trace) -> Vec<Vec<Figure>> {
    let began_us = readings.first().map_or(0, |reading| reading.at_us);
    let stalls = trace.stalls();
    readings
        .windows(2)
        .map(|pair| figures(&pair[0], &pair[1], began_us, trace, &stalls))
        .collect()
}

fn figures(
    before: &Reading,
    after: &Reading,
    began_us: u64,
    trace: &Trace,
    stalls: &[Stall],
) -> Vec<Figure> {
    let time = before.at_us..after.at_us;
    let latency = trace.latency(&time).percentiles();
    let longest = stalls.iter().filter(|stall| time.contains(&stall.to_us));
    let stall_ms = longest.map(Stall::us).max().map(|us| us as f64 / 1e3);
    // Memory is that at the end.
    let (from, to, memory) = (&before.snapshot, &after.snapshot, Memory::default());
    let cost = Cost::between(from, to, &memory, latency.count);
    let cpu = cost.system_cpu_us_a_saga;
    let until = (after.at_us - began_us) as f64 / 1e6;
    let a_second = latency.count as f64 * 1e6 / (after.at_us - before.at_us) as f64;
    let mut all = vec![
        Figure::new(TIME, "until, s", until),
        Figure::new(OF_ALL, "sagas/s", a_second),
        Figure::new(OF_ALL, "p50 ms", latency.p50_ms),
        Figure::new(OF_ALL, "p99 ms", latency.p99_ms),
        Figure::new(OF_ALL, "p99.9 ms", latency.p99_9_ms),
        Figure::new(OF_ALL, "longest stall, ms", stall_ms),
        Figure::new(OF_ALL, "all but load, CPU µs a saga", cpu),
        Figure::new(OF_ALL, "WAL bytes a saga", cost.wal_bytes_a_saga),
        Figure::new(OF_ALL, "busy cores", cost.busy_cores),
        Figure::new(OF_ALL, "others' cores", cost.other_cores()),
    ];
    for (name, process) in &cost.processes {
        // The load generator keeps every end, so its memory grows.
        if name == LOAD_GENERATOR {
            continue;
        }
        let column = format!("{name}, CPU µs a saga");
        all.push(Figure::new(CPU, column, process.cpu_us_a_saga));
        let column = format!("{name}, memory MiB");
        all.push(Figure::new(MEMORY, column, process.resident_max_mib));
        let files = after.descriptors.get(name).map(|count| *count as f64);
        let column = format!("{name}, descriptors");
        all.push(Figure::new(DESCRIPTORS, column, files));
    }
    all.extend(after.tables.iter().cloned());
    let databases = after.snapshot.database_bytes() as f64 / MIB;
    all.push(Figure::new(STORAGE, "databases MiB", databases));
    all
}
