//! The measurements that are made both without the backlog and with it, beside the speed of other sagas.

use super::restart::Restarts;
use crate::{
    measure::{Cost, LOAD_GENERATOR},
    report::{Cell, Report, Row, heads, row},
};
use std::collections::BTreeSet;

pub struct State {
    pub when: &'static str,
    pub idle: Cost,
    pub restarts: Restarts,
    /// The cost of the idle system after the restarts, which includes their aftermath.
    pub idle_after: Cost,
}

/// Returns the busy cores of all processes but the load generator.
fn system_cores(idle: &Cost) -> f64 {
    let system = idle
        .processes
        .iter()
        .filter(|(name, _)| *name != LOAD_GENERATOR);
    let seconds: f64 = system.map(|(_, process)| process.cpu_seconds).sum();
    seconds / idle.seconds
}

pub fn describe(report: &mut Report, states: &[State]) {
    let row = |state: &State| {
        let found = &state.restarts;
        row![
            state.when,
            found.stopped_ms,
            found.ready_ms,
            found.moving_ms,
            found.shared_ms,
            found.taken_over_ms,
        ]
    };
    report.table(
        "Restarts of the orchestrator, in ms:",
        heads(
            "restarts | stopped | ready | all partitions move | a second one shares | taken over",
        ),
        states.iter().map(row).collect(),
    );
    let idles: Vec<(String, &Cost)> = states
        .iter()
        .flat_map(|state| {
            let after = format!("{}, after restarts", state.when);
            [
                (state.when.to_owned(), &state.idle),
                (after, &state.idle_after),
            ]
        })
        .collect();
    let names: BTreeSet<&String> = idles
        .iter()
        .flat_map(|(_, idle)| idle.processes.keys())
        .collect();
    let mut all = heads("idle | cores");
    all.extend(names.iter().map(|name| format!("{name}, cores")));
    all.extend(heads(
        "WAL bytes/s | commits/s | Kafka bytes/s | others' cores",
    ));
    all.extend(names.iter().map(|name| format!("{name}, MiB")));
    let rows = idles
        .iter()
        .map(|(when, idle)| idle_row(when, idle, &names));
    report.table("The idle system:", all, rows.collect());
}

/// Returns the figures of a time without orders. Its cost was counted as that of a single saga.
fn idle_row(when: &str, idle: &Cost, names: &BTreeSet<&String>) -> Row {
    let processes = || names.iter().map(|name| idle.processes.get(*name));
    let mut row = row![when, system_cores(idle)];
    row.extend(
        processes()
            .map(|process| Cell::from(process.map(|process| process.cpu_seconds / idle.seconds))),
    );
    row.extend(row![
        idle.wal_bytes_a_saga / idle.seconds,
        idle.commits_a_saga / idle.seconds,
        idle.kafka_bytes_a_saga.map(|bytes| bytes / idle.seconds),
        idle.other_cores(),
    ]);
    row.extend(
        processes().map(|process| Cell::from(process.map(|process| process.resident_max_mib))),
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Process;

    #[test]
    fn idle_figures_are_by_the_second_and_the_system_is_everything_but_the_load_generator() {
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
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
        assert!(near(system_cores(&cost), 0.2), "{cost:?}");
        let names = cost.processes.keys().collect();
        let row = idle_row("idle", &cost, &names);
        let found: Vec<String> = row.iter().map(ToString::to_string).collect();
        let expected = [
            "idle", "0.20", "0.50", "0.20", "500", "3.00", "–", "0.30", "7.00", "7.00",
        ];
        assert_eq!(found, expected);
    }
}
