//! What the system does while nothing is going on.

use crate::{
    measure::{Cost, Memory},
    progress,
    stage::Bench,
};
use anyhow::Result;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const SAMPLE_PERIOD: Duration = Duration::from_secs(1);

/// Seconds in which nobody orders anything.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    pub seconds: f64,
    /// Cores at work, by process.
    pub cores: BTreeMap<String, f64>,
    pub memory_mib: BTreeMap<String, f64>,
    pub wal_bytes_a_second: f64,
    pub commits_a_second: f64,
    pub kafka_bytes_a_second: Option<f64>,
    pub others_cores: f64,
}

impl Idle {
    /// Of a cost that was given as that of one saga.
    fn of(cost: &Cost) -> Self {
        let by_process = |pick: fn(&crate::measure::Process) -> f64| {
            let all = cost.processes.iter();
            all.map(|(name, process)| (name.clone(), pick(process)))
                .collect::<BTreeMap<String, f64>>()
        };
        let mut cores = by_process(|process| process.cpu_seconds);
        for value in cores.values_mut() {
            *value /= cost.seconds;
        }
        Self {
            seconds: cost.seconds,
            cores,
            memory_mib: by_process(|process| process.resident_max_mib),
            wal_bytes_a_second: cost.wal_bytes_a_saga / cost.seconds,
            commits_a_second: cost.commits_a_saga / cost.seconds,
            kafka_bytes_a_second: cost.kafka_bytes_a_saga.map(|bytes| bytes / cost.seconds),
            others_cores: cost.others_cores + cost.stolen_cores,
        }
    }

    /// Of all processes but the load generator.
    pub fn system_cores(&self) -> f64 {
        let system = self.cores.iter();
        system
            .filter(|(name, _)| *name != crate::measure::LOAD_GENERATOR)
            .map(|(_, cores)| cores)
            .sum()
    }
}

pub async fn look(bench: &mut Bench<'_>, lasts: Duration) -> Result<Idle> {
    let before = bench.probe.snapshot().await?;
    let (began, mut memory) = (Instant::now(), Memory::default());
    while began.elapsed() < lasts {
        memory.rise_to(bench.probe.memory());
        bench.system.check_running()?;
        progress::update("  idle");
        tokio::time::sleep(SAMPLE_PERIOD.min(lasts.saturating_sub(began.elapsed()))).await;
    }
    let after = bench.probe.snapshot().await?;
    Ok(Idle::of(&Cost::between(&before, &after, &memory, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{LOAD_GENERATOR, Process};

    #[test]
    fn what_was_used_is_told_by_the_second_and_the_system_is_everything_but_the_load_generator() {
        let process = |cpu_seconds| Process {
            cpu_seconds,
            cpu_us_a_saga: cpu_seconds * 1e6,
            resident_max_mib: 7.0,
        };
        let cost = Cost {
            seconds: 10.0,
            sagas: 1,
            processes: [
                ("orchestrator".to_owned(), process(2.0)),
                (LOAD_GENERATOR.to_owned(), process(5.0)),
            ]
            .into(),
            system_cpu_us_a_saga: None,
            busy_cores: 0.7,
            others_cores: 0.1,
            stolen_cores: 0.2,
            wal_bytes_a_saga: 5_000.0,
            commits_a_saga: 30.0,
            database_bytes_a_saga: 0.0,
            kafka_bytes_a_saga: None,
            deadlocks: 0,
        };
        let idle = Idle::of(&cost);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
        assert!(near(idle.system_cores(), 0.2), "{idle:?}");
        assert!(near(idle.wal_bytes_a_second, 500.0) && near(idle.commits_a_second, 3.0));
        assert!(near(idle.others_cores, 0.3));
        assert_eq!(idle.kafka_bytes_a_second, None);
    }
}
