//! All counters at one moment, and the differences between two moments.

use super::{
    kafka,
    postgres::{self, PostgresCounters},
    proc::{self, MachineTime, Usage, Watched},
};
use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Reads the counters of the watched processes, of Postgres and of Kafka.
pub struct Probe {
    pub watched: Vec<Watched>,
    databases: Vec<String>,
    /// The data directory of a private Kafka.
    kafka_data: Option<PathBuf>,
    connection: PgConnection,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    usage: BTreeMap<String, Usage>,
    machine: MachineTime,
    postgres: PostgresCounters,
    kafka_bytes: Option<u64>,
}

/// The names of the two processes without which the system's CPU time is unknown.
pub const POSTGRES: &str = "Postgres";
pub const KAFKA: &str = "Kafka";

impl Snapshot {
    pub fn database_bytes(&self) -> i64 {
        self.postgres.database_bytes
    }
}

impl Probe {
    pub async fn new(
        url: &str,
        watched: Vec<Watched>,
        databases: Vec<String>,
        kafka_data: Option<PathBuf>,
    ) -> Result<Self> {
        let connection = PgConnection::connect(url)
            .await
            .context("the probe's connection")?;
        Ok(Self {
            watched,
            databases,
            kafka_data,
            connection,
        })
    }

    pub async fn snapshot(&mut self) -> Result<Snapshot> {
        let kafka_bytes = self
            .kafka_data
            .as_deref()
            .map(kafka::log_bytes)
            .transpose()?;
        let postgres = postgres::counters(&mut self.connection, &self.databases).await?;
        let usage = proc::usage(&self.watched);
        Ok(Snapshot {
            at: Instant::now(),
            usage,
            machine: proc::machine_time()?,
            postgres,
            kafka_bytes,
        })
    }

    pub fn memory(&self) -> Memory {
        let usage = proc::usage(&self.watched);
        Memory(
            usage
                .into_iter()
                .map(|(name, usage)| (name, usage.resident_bytes))
                .collect(),
        )
    }
}

/// The most memory that each process was seen to use.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<String, u64>);

impl Memory {
    pub fn rise_to(&mut self, other: Self) {
        for (name, bytes) in other.0 {
            let most = self.0.entry(name).or_default();
            *most = bytes.max(*most);
        }
    }
}

/// The usage of one process; for Postgres, of all its processes together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub cpu_seconds: f64,
    pub cpu_us_a_saga: f64,
    pub resident_max_mib: f64,
}

/// The cost of the sagas that ended in a time. Figures that cannot be known of a server that is not ours are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    pub seconds: f64,
    pub sagas: u64,
    /// Usage by name of process, including the load generator.
    pub processes: BTreeMap<String, Process>,
    /// The CPU time of all processes but the load generator; left out if one of the servers is not ours.
    pub system_cpu_us_a_saga: Option<f64>,
    /// Busy cores of the whole machine, whichever process used them.
    pub busy_cores: f64,
    /// Busy cores that no process of ours accounts for. Above a few hundredths, another process was at work.
    pub others_cores: f64,
    /// Cores that the hypervisor gave to other guests of the same host.
    pub stolen_cores: f64,
    pub wal_bytes_a_saga: f64,
    pub commits_a_saga: f64,
    pub database_bytes_a_saga: f64,
    pub kafka_bytes_a_saga: Option<f64>,
    pub deadlocks: i64,
}

/// The name of the bench's own process.
pub const LOAD_GENERATOR: &str = "load generator";

impl Cost {
    /// Returns the cores that neither the system nor the load generator used.
    pub fn other_cores(&self) -> f64 {
        self.others_cores + self.stolen_cores
    }

    pub fn between(before: &Snapshot, after: &Snapshot, memory: &Memory, sagas: u64) -> Self {
        let seconds = (after.at - before.at)
            .max(Duration::from_micros(1))
            .as_secs_f64();
        let a_saga = |sum: f64| if sagas == 0 { 0.0 } else { sum / sagas as f64 };
        let mut processes = BTreeMap::new();
        for (name, usage) in &after.usage {
            let began = before
                .usage
                .get(name)
                .map_or(0.0, |usage| usage.cpu_seconds);
            let cpu_seconds = usage.cpu_seconds - began;
            let most = memory
                .0
                .get(name)
                .copied()
                .unwrap_or(0)
                .max(usage.resident_bytes);
            let process = Process {
                cpu_seconds,
                cpu_us_a_saga: a_saga(cpu_seconds * 1e6),
                resident_max_mib: most as f64 / f64::from(1 << 20),
            };
            processes.insert(name.clone(), process);
        }
        let cpu_of = |pick: fn(&str) -> bool| -> f64 {
            let picked = processes.iter().filter(|(name, _)| pick(name));
            picked.map(|(_, process)| process.cpu_seconds).sum()
        };
        let is_whole = [POSTGRES, KAFKA]
            .iter()
            .all(|name| after.usage.contains_key(*name));
        let busy = after.machine.busy - before.machine.busy;
        let postgres = (&after.postgres, &before.postgres);
        let grown =
            |of: fn(&PostgresCounters) -> i64| a_saga((of(postgres.0) - of(postgres.1)) as f64);
        let kafka = after.kafka_bytes.zip(before.kafka_bytes);
        Self {
            seconds,
            sagas,
            system_cpu_us_a_saga: is_whole
                .then(|| a_saga(cpu_of(|name| name != LOAD_GENERATOR) * 1e6)),
            busy_cores: busy / seconds,
            others_cores: (busy - cpu_of(|_| true)).max(0.0) / seconds,
            stolen_cores: (after.machine.stolen - before.machine.stolen) / seconds,
            wal_bytes_a_saga: grown(|counters| counters.wal_bytes),
            commits_a_saga: grown(|counters| counters.commits),
            database_bytes_a_saga: grown(|counters| counters.database_bytes),
            kafka_bytes_a_saga: kafka.map(|(now, then)| a_saga(now as f64 - then as f64)),
            deadlocks: postgres.0.deadlocks - postgres.1.deadlocks,
            processes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(at: Instant, cpu: &[(&str, f64)], busy: f64, wal_bytes: i64) -> Snapshot {
        let usage = |cpu_seconds| Usage {
            cpu_seconds,
            resident_bytes: 1 << 20,
        };
        Snapshot {
            at,
            usage: cpu
                .iter()
                .map(|(name, cpu)| ((*name).to_owned(), usage(*cpu)))
                .collect(),
            machine: MachineTime { busy, stolen: 0.0 },
            postgres: PostgresCounters {
                wal_bytes,
                ..PostgresCounters::default()
            },
            kafka_bytes: None,
        }
    }

    fn cost(sagas: u64) -> Cost {
        let began = Instant::now();
        let before = snapshot(
            began,
            &[(KAFKA, 5.0), (POSTGRES, 0.0), (LOAD_GENERATOR, 1.0)],
            100.0,
            1_000,
        );
        let later = began + Duration::from_secs(10);
        let after = snapshot(
            later,
            &[(KAFKA, 8.0), (POSTGRES, 0.0), (LOAD_GENERATOR, 2.0)],
            109.0,
            5_000,
        );
        let mut memory = Memory::default();
        memory.rise_to(Memory([(KAFKA.to_owned(), 3 << 20)].into()));
        Cost::between(&before, &after, &memory, sagas)
    }

    #[test]
    fn the_system_is_everything_but_the_load_generator() {
        let cost = cost(1_000);
        let system = cost.system_cpu_us_a_saga.expect("all parts are ours");
        assert!((system - 3_000.0).abs() < 1e-6, "{cost:?}");
        assert!((cost.processes[LOAD_GENERATOR].cpu_us_a_saga - 1_000.0).abs() < 1e-6);
        assert!((cost.wal_bytes_a_saga - 4.0).abs() < 1e-9);
        assert_eq!(cost.kafka_bytes_a_saga, None);
    }

    #[test]
    fn processor_time_of_other_processes_is_the_remainder() {
        let cost = cost(1_000);
        assert!((cost.busy_cores - 0.9).abs() < 1e-9);
        // Nine seconds of work, four of them by our processes.
        assert!((cost.others_cores - 0.5).abs() < 1e-9);
    }

    #[test]
    fn the_most_memory_is_kept_whether_it_was_seen_in_between_or_at_the_end() {
        let cost = cost(1);
        assert!((cost.processes[KAFKA].resident_max_mib - 3.0).abs() < 1e-9);
        assert!((cost.processes[LOAD_GENERATOR].resident_max_mib - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_time_without_sagas_has_no_cost_a_saga() {
        assert!(
            cost(0)
                .system_cpu_us_a_saga
                .is_some_and(|us| us.abs() < 1e-9)
        );
    }
}
