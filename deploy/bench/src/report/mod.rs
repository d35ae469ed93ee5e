//! The report of a study: sections of text and tables, the stages, and charts. The same report is rendered for programs
//! (JSON), for a file (Markdown) and for a terminal.

mod chart;
mod stages;
pub mod table;

pub use chart::{Axes, Chart, Line};
pub use stages::{busiest, costs, latency_chart, memory, throughput_chart};
pub(crate) use table::row;
pub use table::{Cell, Row, Style, Table, heads};

use crate::{bench::Bench, measure::Machine, stage::Stage, system::Servers, workload::Workload};
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{fmt::Write, fs, path::Path};

/// The results of a study.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name of the files without their ending.
    #[serde(skip)]
    name: &'static str,
    machine: Machine,
    servers: Servers,
    sections: Vec<Section>,
    /// Further figures, for programs only.
    figures: Map<String, Value>,
    stages: Vec<Stage>,
    /// The mistakes that were found. Empty if all results are right.
    pub mistakes: Vec<String>,
    /// Charts by the names of their files.
    #[serde(skip)]
    charts: Vec<(String, Chart)>,
}

#[derive(Clone, Debug, Serialize)]
struct Section {
    text: String,
    table: Option<Table>,
}

impl Report {
    pub fn new(name: &'static str, bench: &Bench<'_>) -> Self {
        Self {
            name,
            machine: bench.machine.clone(),
            servers: bench.servers.clone(),
            sections: Vec::new(),
            figures: Map::new(),
            stages: Vec::new(),
            mistakes: Vec::new(),
            charts: Vec::new(),
        }
    }

    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Adds the stages and the mistakes of a workload.
    pub fn add(&mut self, workload: Workload) {
        self.stages.extend(workload.stages);
        self.mistakes.extend(workload.mistakes);
    }

    pub fn text(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.sections.push(Section { text, table: None });
    }

    pub fn table(&mut self, text: impl Into<String>, heads: Vec<String>, rows: Vec<Row>) {
        self.sections.push(Section {
            text: text.into(),
            table: Some(Table { heads, rows }),
        });
    }

    /// Adds a figure for programs only.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    pub fn chart(&mut self, file: impl Into<String>, chart: Chart) {
        self.charts.push((file.into(), chart));
    }

    /// Writes the report as JSON and Markdown, and the charts.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, ending: &str, text: String| {
            let path = directory.join(format!("{name}.{ending}"));
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        put(self.name, "json", serde_json::to_string_pretty(self)?)?;
        put(self.name, "md", self.render(Style::Markdown))?;
        for (name, chart) in &self.charts {
            put(name, "svg", chart.draw()?)?;
        }
        Ok(())
    }

    /// Renders the report for people: what was measured on, the stages, the sections, and whether all results are right.
    pub fn render(&self, style: Style) -> String {
        let mut text = self.subject();
        let stages = Section {
            text: STAGES.to_owned(),
            table: Some(stages::table(&self.stages)),
        };
        for section in [&stages].into_iter().chain(&self.sections) {
            text.push('\n');
            text.push_str(&section.text);
            text.push('\n');
            if let Some(table) = &section.table {
                text.push('\n');
                text.push_str(&table.render(style));
            }
        }
        if self.mistakes.is_empty() {
            text.push_str("\nEvery accepted order ended as it must, and all sums add up.\n");
        } else {
            text.push_str("\nBROKEN:\n\n");
        }
        for mistake in &self.mistakes {
            writeln!(text, "- {mistake}").expect("a String takes any text");
        }
        text
    }

    /// Describes the machine and the servers that were measured on.
    fn subject(&self) -> String {
        let (machine, servers) = (&self.machine, &self.servers);
        let settings: Vec<String> = servers
            .postgres_settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!(
            "{}, commit {}, {}, {} cores, {} MiB, Linux {}, {} (8 KiB written and flushed in {} µs), PostgreSQL {}, \
             Kafka {} with {} partitions a topic, {}.\n\nPostgres: {}.\n",
            machine.date,
            machine.commit,
            machine.cpu,
            machine.cores,
            machine.memory_mib,
            machine.kernel,
            machine.filesystem,
            machine.flush_us,
            servers.postgres,
            servers.kafka,
            servers.partitions,
            machine.rustc,
            settings.join(", ")
        )
    }
}

const STAGES: &str = "Latency is from the 201 until the saga's end was seen; the answer's is from when the order was meant \
     to be sent; late is by how much the load generator sent it later than that.";
