//! What a crowd came to: for programs (JSON), and for people (tables).

use super::{
    comeback::{Comeback, Meanwhile},
    gather::Gathering,
    idle::Idle,
    others::Speed,
    restart::Restarts,
};
use crate::{
    load::Percentiles,
    measure::Machine,
    report::{
        Findings, Servers, StageReport, put,
        table::{describe, grouped, number, optional, table, verdict},
    },
};
use anyhow::Result;
use serde::Serialize;
use std::{collections::BTreeSet, path::Path};

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CrowdReport {
    pub machine: Machine,
    pub servers: Servers,
    pub without: Standing,
    pub gathering: Gathering,
    pub with: Standing,
    pub comeback: Comeback,
    /// Empty if all results are right.
    pub mistakes: Vec<String>,
}

/// What is measured without the crowd and with it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    pub speed: Speed,
    pub idle: Idle,
    pub restarts: Restarts,
    /// After the restarts: what they leave behind is part of it.
    pub idle_after: Idle,
}

impl Findings for CrowdReport {
    /// `crowd.json` and `crowd.md`.
    fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, text: String| put(directory, name, &text);
        put("crowd.json", serde_json::to_string_pretty(self)?)?;
        put("crowd.md", self.table())
    }

    fn table(&self) -> String {
        let parts = [
            describe(&self.machine, &self.servers),
            format!("\nThe crowd: {}.\n", self.gathering.told()),
            "\nOthers, which do not need the dead participant:\n\n".to_owned(),
            self.speeds(),
            "\nRestarts of the orchestrator, in ms:\n\n".to_owned(),
            self.restarts(),
            "\nIdle:\n\n".to_owned(),
            self.idles(),
            format!("\nThe return: {}.\n\n", self.comeback.told()),
            self.drain(),
            verdict(&self.mistakes),
        ];
        parts.concat()
    }

    fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

impl CrowdReport {
    fn both(&self) -> [(&'static str, &Standing); 2] {
        [("without", &self.without), ("with the crowd", &self.with)]
    }

    fn speeds(&self) -> String {
        let heads = [
            "others",
            "sagas/s",
            "of without, %",
            "p50 ms",
            "p99 ms",
            "turned away",
            "CPU µs a saga",
            "others' cores",
        ];
        let closed = |standing: &Standing| standing.speed.closed.clone();
        let open = |standing: &Standing| standing.speed.open.clone();
        let mut rows = Vec::new();
        for pick in [closed, open] {
            let base = pick(&self.without).sagas_a_second;
            rows.extend(
                self.both()
                    .map(|(_, standing)| speed_row(&pick(standing), base)),
            );
        }
        table(&heads, &rows)
    }

    fn restarts(&self) -> String {
        let heads = [
            "restarts",
            "stopped",
            "ready",
            "all partitions move",
            "a second one shares",
            "taken over",
        ];
        let rows = self.both().map(|(name, standing)| {
            let found = &standing.restarts;
            let ms = |value: Option<u64>| optional(value.map(|ms| ms as f64));
            vec![
                name.to_owned(),
                ms(Some(found.stopped_ms)),
                ms(Some(found.ready_ms)),
                ms(found.moving_ms),
                ms(found.shared_ms),
                ms(found.taken_over_ms),
            ]
        });
        table(&heads, &rows)
    }

    fn idles(&self) -> String {
        let all = [
            ("without", &self.without.idle),
            ("without, after restarts", &self.without.idle_after),
            ("with the crowd", &self.with.idle),
            ("with the crowd, after restarts", &self.with.idle_after),
        ];
        let names: BTreeSet<&String> = all.iter().flat_map(|(_, idle)| idle.cores.keys()).collect();
        let mut heads = vec!["idle".to_owned(), "cores".to_owned()];
        heads.extend(names.iter().map(|name| format!("{name}, cores")));
        heads.extend(["WAL bytes/s", "commits/s", "Kafka bytes/s"].map(str::to_owned));
        heads.extend(names.iter().map(|name| format!("{name}, MiB")));
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|(when, idle)| {
                let cores = |name: &&String| idle.cores.get(*name).copied();
                let mut row = vec![(*when).to_owned(), number(idle.system_cores())];
                row.extend(names.iter().map(|name| optional(cores(name))));
                row.push(number(idle.wal_bytes_a_second));
                row.push(number(idle.commits_a_second));
                row.push(optional(idle.kafka_bytes_a_second));
                let memory = |name: &&String| idle.memory_mib.get(*name).copied();
                row.extend(names.iter().map(|name| optional(memory(name))));
                row
            })
            .collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        table(&heads, &rows)
    }

    fn drain(&self) -> String {
        let found = &self.comeback;
        let order = &found.order;
        let rows = [
            (
                "out of order, p99 % of all",
                number(100.0 * order.displaced_p99),
            ),
            ("out of order, most %", number(100.0 * order.displaced_max)),
            ("overtaken, p99 ms", grouped(order.overtaken_p99_ms as f64)),
            ("overtaken, most ms", grouped(order.overtaken_max_ms as f64)),
            (
                "commands to payment-svc a saga",
                number(share(found.commands, found.ended)),
            ),
            ("charges a saga", number(share(found.charges, found.ended))),
            (
                "sagas with a repeated command",
                grouped(found.repeated as f64),
            ),
            (
                "others turned away, %",
                number(turned_away(&found.meanwhile)),
            ),
            (
                "others, median p50 ms",
                optional(middle(&found.meanwhile, |one| one.p50_ms)),
            ),
            (
                "others, median p99 ms",
                optional(middle(&found.meanwhile, |one| one.p99_ms)),
            ),
            ("others, longest ms", optional(longest(&found.meanwhile))),
        ];
        let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
        table(&["drain", "value"], &rows)
    }
}

fn speed_row(stage: &StageReport, base: f64) -> Vec<String> {
    vec![
        stage.name.clone(),
        number(stage.sagas_a_second),
        number(100.0 * stage.sagas_a_second / base),
        optional(stage.accepted_to_ended.p50_ms),
        optional(stage.accepted_to_ended.p99_ms),
        grouped(stage.not_accepted.pushed_back as f64),
        optional(stage.cost.system_cpu_us_a_saga),
        number(stage.cost.others_cores + stage.cost.stolen_cores),
    ]
}

/// Of the orders of others, in percent.
fn turned_away(stages: &[Meanwhile]) -> f64 {
    let sum = |of: fn(&Meanwhile) -> u64| stages.iter().map(of).sum::<u64>();
    100.0 * sum(|one| one.turned_away) as f64 / sum(|one| one.sent).max(1) as f64
}

fn share(count: i64, of: u64) -> f64 {
    count as f64 / of.max(1) as f64
}

/// Of the stages in which there was enough to tell.
fn middle(stages: &[Meanwhile], pick: fn(&Percentiles) -> Option<f64>) -> Option<f64> {
    let mut all: Vec<f64> = stages.iter().filter_map(|one| pick(&one.latency)).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

fn longest(stages: &[Meanwhile]) -> Option<f64> {
    let all = stages.iter().filter_map(|stage| stage.latency.max_ms);
    all.max_by(f64::total_cmp)
}

impl Gathering {
    pub fn told(&self) -> String {
        format!(
            "{} sagas wait after {} s ({} a second), accepted within {} s with {} turned away; the live table has {} MiB, \
             {} bytes a saga",
            grouped(self.accepted as f64),
            number(self.waiting_seconds),
            grouped(self.sagas_a_second),
            number(self.accepted_seconds),
            grouped(self.not_accepted.pushed_back as f64),
            grouped(self.live_table_bytes as f64 / f64::from(1 << 20)),
            grouped(self.live_table_bytes_a_saga),
        )
    }
}

impl Comeback {
    pub fn told(&self) -> String {
        format!(
            "{} sagas have ended after {} s ({} a second), from the start of payment-svc, which took {} s",
            grouped(self.ended as f64),
            number(self.drained_seconds),
            grouped(self.sagas_a_second),
            number(self.ready_ms as f64 / 1e3),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(p50_ms: Option<f64>, max_ms: f64) -> Meanwhile {
        Meanwhile {
            sent: 50,
            turned_away: 20,
            ended: 0,
            latency: Percentiles {
                p50_ms,
                max_ms: Some(max_ms),
                ..Percentiles::default()
            },
        }
    }

    #[test]
    fn of_many_stages_the_middle_one_and_the_longest_wait_are_told() {
        let stages = [
            stage(Some(9.0), 50.0),
            stage(None, 900.0),
            stage(Some(1.0), 2.0),
            stage(Some(5.0), 7.0),
        ];
        assert_eq!(middle(&stages, |one| one.p50_ms), Some(5.0));
        assert_eq!(longest(&stages), Some(900.0));
        assert!((turned_away(&stages) - 40.0).abs() < 1e-9);
        assert!(turned_away(&[]).abs() < 1e-9);
        assert_eq!(middle(&[], |one| one.p50_ms), None);
    }
}
