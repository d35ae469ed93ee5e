//! The tables and charts of stages, which every study has.

use super::{
    chart::{Axes, Chart, Line, nines},
    table::{Cell, Row, Table, heads, row},
};
use crate::{
    measure::{Cost, LOAD_GENERATOR},
    stage::Stage,
};
use std::collections::BTreeSet;

/// Returns the table of throughput and latency.
pub fn table(stages: &[Stage]) -> Table {
    let row = |stage: &Stage| {
        let latency = stage.accepted_to_ended;
        row![
            stage.label(),
            stage.sagas_a_second,
            latency.p50_ms,
            latency.p90_ms,
            latency.p99_ms,
            latency.p99_9_ms,
            stage.intended_to_accepted.p99_ms,
            stage.sending.p99_ms,
            stage.not_accepted.pushed_back,
            stage.cost.system_cpu_us_a_saga,
            stage.cost.busy_cores,
            stage.cost.other_cores(),
        ]
    };
    Table {
        heads: heads(
            "stage | sagas/s | p50 ms | p90 ms | p99 ms | p99.9 ms | answer p99 ms | late p99 ms | turned away | CPU µs a saga | busy cores | others' cores",
        ),
        rows: stages.iter().map(row).collect(),
    }
}

/// Returns the closed loop with the highest throughput, which is the saturation.
pub fn busiest<'a>(stages: impl IntoIterator<Item = &'a Stage>) -> Option<&'a Stage> {
    let closed = stages.into_iter().filter(|stage| stage.in_flight.is_some());
    closed.max_by(|a, b| a.sagas_a_second.total_cmp(&b.sagas_a_second))
}

/// Returns the heads and rows of what a saga cost in some stages. Copies of a service count together.
pub fn costs<'a>(stages: impl IntoIterator<Item = &'a Stage>) -> (Vec<String>, Vec<Row>) {
    let stages: Vec<&Stage> = stages.into_iter().collect();
    let names = processes(stages.iter().copied());
    let mut all = heads("cost a saga | sagas | all but load, CPU µs");
    all.extend(names.iter().map(|name| format!("{name}, CPU µs")));
    all.extend(heads("WAL bytes | commits | database bytes | Kafka bytes"));
    let row = |stage: &&Stage| {
        let cost = &stage.cost;
        let mut row = row![stage.label(), cost.sagas, cost.system_cpu_us_a_saga];
        row.extend(
            names
                .iter()
                .map(|name| Cell::from(cpu_us_a_saga(cost, name))),
        );
        row.extend(row![
            cost.wal_bytes_a_saga,
            cost.commits_a_saga,
            cost.database_bytes_a_saga,
            cost.kafka_bytes_a_saga,
        ]);
        row
    };
    (all, stages.iter().map(row).collect())
}

/// Returns the heads and rows of the most memory in MiB that each process used in each workload.
pub fn memory(stages: &[Stage]) -> (Vec<String>, Vec<Row>) {
    let mut names: BTreeSet<&String> = stages
        .iter()
        .flat_map(|stage| stage.cost.processes.keys())
        .collect();
    names.retain(|name| *name != LOAD_GENERATOR);
    let mut all = heads("most memory, MiB");
    all.extend(names.iter().map(|name| (*name).clone()));
    let mut workloads: Vec<&String> = stages.iter().map(|stage| &stage.workload).collect();
    workloads.dedup();
    let row = |workload: &&String| {
        let most = |name: &&String| {
            let own = stages.iter().filter(|stage| stage.workload == **workload);
            let found = own.filter_map(|stage| stage.cost.processes.get(*name));
            Cell::from(
                found
                    .map(|process| process.resident_max_mib)
                    .max_by(f64::total_cmp),
            )
        };
        let mut row = row![workload.as_str()];
        row.extend(names.iter().map(most));
        row
    };
    (all, workloads.iter().map(row).collect())
}

/// Returns the names of all processes, the load generator last. Copies of a service have one name.
fn processes<'a>(stages: impl Iterator<Item = &'a Stage>) -> Vec<&'a str> {
    let names = stages.flat_map(|stage| stage.cost.processes.keys());
    let mut names: BTreeSet<&str> = names.map(|name| service(name)).collect();
    names.remove(LOAD_GENERATOR);
    names.into_iter().chain([LOAD_GENERATOR]).collect()
}

/// Returns the name without the number that further copies of a service have.
fn service(name: &str) -> &str {
    let digits = name.trim_end_matches(|last: char| last.is_ascii_digit());
    match digits.strip_suffix('-') {
        Some(service) if digits.len() < name.len() => service,
        Some(_) | None => name,
    }
}

fn cpu_us_a_saga(cost: &Cost, name: &str) -> Option<f64> {
    let own = cost
        .processes
        .iter()
        .filter(|(process, _)| service(process) == name);
    let all: Vec<f64> = own.map(|(_, process)| process.cpu_us_a_saga).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

/// Plots milliseconds over the percentile of the open loops, on axes that leave room for the tail.
pub fn latency_chart(title: &str, stages: &[Stage]) -> Chart {
    let point = |(quantile, ms): &(f64, f64)| (nines(*quantile), *ms);
    let line = |stage: &Stage| {
        let rate = stage.offered_a_second?;
        Some(Line {
            name: format!("{} ({rate:.0}/s)", stage.name),
            points: stage.curve.iter().map(point).collect(),
        })
    };
    Chart {
        title: format!("{title}: from accepted to ended"),
        across: "percentile",
        up: "milliseconds",
        axes: Axes::Tail,
        lines: stages.iter().filter_map(line).collect(),
    }
}

/// Plots the sagas that ended in each second.
pub fn throughput_chart(title: &str, stages: &[Stage]) -> Chart {
    let line = |stage: &Stage| Line {
        name: stage.name.clone(),
        points: (0_u32..)
            .zip(&stage.timeline)
            .map(|(second, ended)| (f64::from(second), *ended as f64))
            .collect(),
    };
    Chart {
        title: format!("{title}: sagas that ended, a second"),
        across: "seconds from the stage's beginning, warm-up included",
        up: "sagas a second",
        axes: Axes::Linear,
        lines: stages.iter().map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_service_have_its_name() {
        let check = |name: &str, expected: &str| assert_eq!(service(name), expected);
        check("order-svc", "order-svc");
        check("order-svc-2", "order-svc");
        check("Postgres", "Postgres");
        check("s3", "s3");
    }
}
