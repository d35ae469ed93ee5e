//! What scaling out came to: `scale.json` and `scale.md`.

use crate::{
    measure::{KAFKA, Machine, POSTGRES},
    report::{
        Findings, Servers, StageReport, put,
        table::{describe, grouped, number, optional, table, verdict},
    },
};
use anyhow::Result;
use saga_e2e::system::Service;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleReport {
    pub machine: Option<Machine>,
    /// The last ones: only their partitions differ.
    pub servers: Option<Servers>,
    pub steps: Vec<Step>,
    /// Empty if all results are right.
    pub mistakes: Vec<String>,
}

/// One closed loop.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub partitions: i32,
    pub copies: usize,
    /// How many times longer than usual it was measured.
    pub times: u32,
    pub shares: Vec<Share>,
    pub stage: StageReport,
}

/// What one process had of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub instance: String,
    pub service: &'static str,
    /// At the beginning.
    pub partitions: usize,
    pub records: u64,
    pub cpu_us_a_saga: f64,
}

impl Step {
    /// CPU of a service's copies together, and of the servers.
    fn cpu_us_a_saga(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for share in &self.shares {
            *sums.entry(share.service.to_owned()).or_default() += share.cpu_us_a_saga;
        }
        for name in [POSTGRES, KAFKA] {
            if let Some(process) = self.stage.cost.processes.get(name) {
                sums.insert(name.to_owned(), process.cpu_us_a_saga);
            }
        }
        sums
    }

    fn sagas(&self) -> f64 {
        self.stage.sagas_a_second * self.stage.seconds
    }

    fn figures(&self) -> Vec<String> {
        let stage = &self.stage;
        let mut cells = vec![
            number(stage.sagas_a_second),
            optional(stage.accepted_to_ended.p50_ms),
            optional(stage.accepted_to_ended.p99_ms),
            optional(stage.cost.system_cpu_us_a_saga),
        ];
        let sums = self.cpu_us_a_saga();
        cells.extend(parts().map(|name| optional(sums.get(name).copied())));
        cells.push(format!(
            "{:.2}",
            stage.cost.others_cores + stage.cost.stolen_cores
        ));
        cells
    }
}

/// Whose CPU is told apart.
fn parts() -> impl Iterator<Item = &'static str> {
    let services = Service::ALL.into_iter().map(Service::name);
    services.chain([POSTGRES, KAFKA])
}

impl Findings for ScaleReport {
    fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, text: String| put(directory, name, &text);
        put("scale.json", serde_json::to_string_pretty(self)?)?;
        put("scale.md", self.table())
    }

    fn table(&self) -> String {
        let mut text = self
            .machine
            .as_ref()
            .zip(self.servers.as_ref())
            .map_or_else(String::new, |(machine, servers)| {
                let last = describe(machine, servers);
                format!("{last}\nPartitions are those of the rows, not of this last system.\n")
            });
        text.push_str(
            "\nBy copies of each service. CPU is µs a saga, of a service all of its copies together.\n\n",
        );
        let by_copies = self.steps.iter().filter(|step| step.times == 1);
        text.push_str(&figures("partitions, copies", by_copies, |step| {
            format!("{}, {}", step.partitions, step.copies)
        }));
        text.push_str("\nBy partitions and by sagas, one copy of each service:\n\n");
        let alone = self.steps.iter().filter(|step| step.copies == 1);
        text.push_str(&figures("partitions, sagas", alone, |step| {
            format!("{}, {}", step.partitions, grouped(step.sagas()))
        }));
        text.push_str("\nWhat each process had: partitions / records read, warm-up and drain included / CPU µs a saga.\n\n");
        text.push_str(&self.shares());
        text.push_str(&verdict(&self.mistakes));
        text
    }

    fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

impl ScaleReport {
    fn shares(&self) -> String {
        let mut heads = vec!["partitions, copies, process"];
        let services = Service::ALL.map(Service::name);
        heads.extend(services);
        let mut rows = Vec::new();
        for step in self.steps.iter().filter(|step| step.copies > 1) {
            for number in 0..step.copies {
                let mut row = vec![format!(
                    "{}, {}, {}",
                    step.partitions,
                    step.copies,
                    number + 1
                )];
                row.extend(services.map(|service| {
                    let mut own = step.shares.iter().filter(|share| share.service == service);
                    own.nth(number).map_or_else(String::new, told)
                }));
                rows.push(row);
            }
        }
        table(&heads, &rows)
    }
}

fn told(share: &Share) -> String {
    format!(
        "{} / {} / {}",
        share.partitions,
        grouped(share.records as f64),
        number(share.cpu_us_a_saga)
    )
}

fn figures<'a>(
    first: &str,
    steps: impl Iterator<Item = &'a Step>,
    name: fn(&Step) -> String,
) -> String {
    let cpu: Vec<String> = parts().map(|part| format!("{part}, CPU")).collect();
    let mut heads = vec![first, "sagas/s", "p50 ms", "p99 ms", "all but load, CPU"];
    heads.extend(cpu.iter().map(String::as_str));
    heads.push("others' cores");
    let rows: Vec<Vec<String>> = steps
        .map(|step| {
            let mut row = vec![name(step)];
            row.extend(step.figures());
            row
        })
        .collect();
    table(&heads, &rows)
}
