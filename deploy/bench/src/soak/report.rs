//! What a soak came to: `soak.json`, `soak.md`, and a plot of latency, of CPU and of memory.

use super::{
    drift::{self, Drift, Series},
    retention::{RetentionReport, Told},
    sampler::Sample,
};
use crate::{
    measure::Machine,
    report::{
        Findings, Servers, StageReport,
        chart::{Chart, Line, Scale},
        plot::{even, plain},
        put,
        table::{describe, grouped, number, optional, table, verdict},
    },
};
use anyhow::Result;
use serde::Serialize;
use std::{fmt::Write, path::Path};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SoakReport {
    pub machine: Machine,
    pub servers: Servers,
    /// The closed loop.
    pub saturation: StageReport,
    /// Orders a second that were offered in the soak.
    pub rate: f64,
    pub interval_seconds: u64,
    pub stage: StageReport,
    pub samples: Vec<Sample>,
    pub drift: Vec<Drift>,
    pub retention: Option<RetentionReport>,
    /// Empty if all results are right.
    pub mistakes: Vec<String>,
}

impl Findings for SoakReport {
    fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, text: String| put(directory, name, &text);
        put("soak.json", serde_json::to_string_pretty(self)?)?;
        put("soak.md", self.table())?;
        put("soak-latency.svg", self.plot("milliseconds", &[" ms"])?)?;
        put(
            "soak-cpu.svg",
            self.plot("CPU µs a saga", &["CPU µs a saga"])?,
        )?;
        put("soak-memory.svg", self.plot("MiB", &["memory MiB"])?)?;
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = describe(&self.machine, &self.servers);
        writeln!(
            text,
            "\nSaturation {} sagas/s with {} orders in flight; the soak was offered {} a second.\n",
            number(self.saturation.sagas_a_second),
            optional(self.saturation.in_flight.map(|count| count as f64)),
            number(self.rate),
        )
        .expect("a String takes any text");
        text.push_str(&self.by_time());
        text.push_str("\nMemory in MiB / open file descriptors, at the end of each time:\n\n");
        text.push_str(&self.resources());
        text.push_str(
            "\nLive tables, MiB / dead rows / autovacuums since the start, and all databases:\n\n",
        );
        text.push_str(&self.tables());
        text.push_str(
            "\nDrift: the median of the last third of the times over the median of the first third, without the first \
             two, which settle.\n\n",
        );
        text.push_str(&self.drifts());
        if let Some(retention) = &self.retention {
            text.push_str(&dropped(retention));
        }
        text.push_str(&verdict(&self.mistakes));
        text
    }

    fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

impl SoakReport {
    fn by_time(&self) -> String {
        let heads = [
            "until, s",
            "sagas/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "longest stall, ms",
            "CPU µs a saga",
            "WAL bytes a saga",
            "busy cores",
            "others' cores",
        ];
        let row = |sample: &Sample| {
            vec![
                format!("{:.0}", sample.seconds),
                number(sample.sagas_a_second),
                optional(sample.latency.p50_ms),
                optional(sample.latency.p99_ms),
                optional(sample.latency.p99_9_ms),
                optional(sample.longest_stall_ms),
                optional(sample.cost.system_cpu_us_a_saga),
                number(sample.cost.wal_bytes_a_saga),
                format!("{:.2}", sample.cost.busy_cores),
                format!("{:.2}", sample.cost.others_cores + sample.cost.stolen_cores),
            ]
        };
        table(&heads, &self.samples.iter().map(row).collect::<Vec<_>>())
    }

    fn resources(&self) -> String {
        let names = drift::processes(&self.samples);
        let mut heads = vec!["until, s"];
        heads.extend(names.iter().map(String::as_str));
        let cell = |sample: &Sample, name: &String| {
            let memory = sample.cost.processes.get(name);
            let memory = memory.map(|process| process.resident_max_mib);
            let files = sample.descriptors.get(name).map(|count| *count as f64);
            format!("{} / {}", optional(memory), whole(files))
        };
        self.rows(&heads, |sample| {
            names.iter().map(|name| cell(sample, name)).collect()
        })
    }

    fn tables(&self) -> String {
        let names: Vec<String> = self
            .samples
            .first()
            .map_or_else(Vec::new, |sample| sample.tables.keys().cloned().collect());
        let mut heads = vec!["until, s"];
        heads.extend(names.iter().map(String::as_str));
        heads.push("all databases, MiB");
        self.rows(&heads, |sample| {
            let cell = |name: &String| {
                let found = sample.tables.get(name).copied().unwrap_or_default();
                format!(
                    "{} / {} / {}",
                    number(found.mib),
                    grouped(found.dead_rows as f64),
                    found.autovacuums
                )
            };
            let mut cells: Vec<String> = names.iter().map(cell).collect();
            cells.push(number(sample.databases_mib));
            cells
        })
    }

    fn rows(&self, heads: &[&str], cells: impl Fn(&Sample) -> Vec<String>) -> String {
        let row = |sample: &Sample| {
            let mut row = vec![format!("{:.0}", sample.seconds)];
            row.extend(cells(sample));
            row
        };
        table(heads, &self.samples.iter().map(row).collect::<Vec<_>>())
    }

    fn drifts(&self) -> String {
        let row = |drift: &Drift| {
            vec![
                drift.series.clone(),
                number(drift.first),
                number(drift.last),
                optional(drift.ratio),
            ]
        };
        let rows: Vec<Vec<String>> = self.drift.iter().map(row).collect();
        table(&["figure", "first third", "last third", "ratio"], &rows)
    }

    /// Of every series whose name ends so.
    fn plot(&self, up: &'static str, endings: &[&str]) -> Result<String> {
        let times = || self.samples.iter().map(|sample| sample.seconds);
        let line = |series: Series| Line {
            points: times()
                .zip(&series.values)
                .filter_map(|(at, value)| Some((at, (*value)?)))
                .collect(),
            name: series.name,
        };
        let wanted = |series: &Series| endings.iter().any(|ending| series.name.ends_with(ending));
        let all = drift::series(&self.samples).into_iter();
        Chart {
            title: format!("soak: {up}"),
            across: Scale {
                name: "seconds",
                ticks: even,
                label: plain,
                from_zero: true,
            },
            up: Scale {
                name: up,
                ticks: even,
                label: plain,
                from_zero: true,
            },
            lines: all.filter(wanted).map(line).collect(),
        }
        .draw()
    }
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), grouped)
}

fn dropped(report: &RetentionReport) -> String {
    let mut text = format!(
        "\nRetention under the same load ({} sagas/s). Around each drop, from 4 s before it was seen until 1 s after: the \
         longest time in which no saga ended although some were on their way, and the longest that a saga took.\n\n",
        number(report.stage.sagas_a_second),
    );
    let heads = [
        "partition",
        "rows",
        "MiB",
        "at, s",
        "late, s",
        "stall ms",
        "longest saga, ms",
    ];
    let mut rows: Vec<Vec<String>> = report
        .drops
        .iter()
        .map(|drop| {
            vec![
                format!(
                    "{} {}{}",
                    drop.aged.service,
                    drop.aged.partition,
                    if drop.under_load {
                        ""
                    } else {
                        ", without load"
                    }
                ),
                grouped(drop.aged.rows as f64),
                number(drop.aged.mib),
                number(drop.at_seconds),
                number(drop.late_seconds),
                number(drop.around.stall_ms),
                number(drop.around.latency_ms),
            ]
        })
        .collect();
    let quiet = &report.quiet;
    for (name, found) in [("median", quiet.median), ("worst", quiet.most)] {
        let mut row = vec![format!("no drop, {name} of {} times", quiet.times)];
        row.extend(["–", "–", "–", "–"].map(str::to_owned));
        row.extend([number(found.stall_ms), number(found.latency_ms)]);
        rows.push(row);
    }
    text.push_str(&table(&heads, &rows));
    writeln!(
        text,
        "\nAbove 100 ms: {} of {} drops, {} of {} times without one.",
        report.above_limit(),
        report.drops.len(),
        quiet.times_above_limit,
        quiet.times,
    )
    .expect("a String takes any text");
    if !report.waits.is_empty() {
        text.push_str("\nWho waited for a table's lock, exact to the time between two looks, 25 ms or more:\n\n");
        text.push_str(&waits(&report.waits));
    }
    text
}

fn waits(all: &[Told]) -> String {
    let row = |told: &Told| {
        let behind: Vec<&str> = told.wait.behind.iter().map(String::as_str).collect();
        vec![
            told.wait.database.clone(),
            number(told.at_seconds),
            number(told.ms),
            told.wait.waiters.to_string(),
            // A statement's own lines and bars would end the row.
            behind.join("; ").replace(['\n', '|'], " "),
        ]
    };
    let heads = ["database", "at, s", "ms", "waiting", "the drop waited for"];
    table(&heads, &all.iter().map(row).collect::<Vec<_>>())
}
