//! What a run came to: for programs (JSON), for people (a table), and for the eye (plots).

pub mod chart;
pub mod plot;
pub mod table;

use crate::{
    floor::Floor,
    load::{Latency, NotAccepted, Orders, Percentiles, Second},
    measure::{Cost, Machine},
    scenario::{Kind, Scenario},
    stage::{Offer, Stage},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fs, path::Path};

/// What a measurement found.
pub trait Findings {
    /// As files, plots among them.
    fn write(&self, directory: &Path) -> Result<()>;

    /// For people.
    fn table(&self) -> String;

    /// Empty if all results are right.
    fn mistakes(&self) -> &[String];
}

/// One of a report's files.
pub fn put(directory: &Path, name: &str, text: &str) -> Result<()> {
    fs::write(directory.join(name), text).with_context(|| format!("writing {name}"))
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub machine: Machine,
    pub servers: Servers,
    pub scenarios: Vec<ScenarioReport>,
    /// Empty if all results are right.
    pub mistakes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Servers {
    pub postgres: String,
    pub postgres_settings: BTreeMap<String, String>,
    pub kafka: String,
    pub partitions: i32,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScenarioReport {
    pub scenario: Scenario,
    /// Complete sagas a second, with so many orders in flight that more of them gain nothing.
    pub saturation_a_second: f64,
    pub floor: Option<Floor>,
    pub stages: Vec<StageReport>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageReport {
    pub name: String,
    /// Open loop: orders a second that were offered.
    pub offered_a_second: Option<f64>,
    /// Closed loop: orders on their way at any time.
    pub in_flight: Option<u64>,
    pub seconds: f64,
    pub sagas_a_second: f64,
    pub accepted_a_second: f64,
    pub sent: u64,
    pub not_accepted: NotAccepted,
    pub orders: BTreeMap<Kind, Orders>,
    pub accepted_to_ended: Percentiles,
    pub intended_to_ended: Percentiles,
    pub intended_to_accepted: Percentiles,
    /// How late the load generator itself was: if this is not small, it was short of CPU.
    pub sending: Percentiles,
    /// Quantile and milliseconds, accepted to ended.
    pub curve: Vec<(f64, f64)>,
    pub timeline: Vec<Second>,
    pub cost: Cost,
    pub drained_ms: Option<u64>,
    pub events: BTreeMap<String, u64>,
}

impl StageReport {
    pub fn new(stage: &Stage) -> Self {
        let tally = &stage.tally;
        let percentiles = Latency::percentiles;
        let seconds = stage.plan.measured.as_secs_f64();
        let (offered_a_second, in_flight) = match stage.plan.offer {
            Offer::Rate { per_second } => (Some(per_second), None),
            Offer::InFlight(count) => (None, Some(count)),
        };
        Self {
            name: stage.plan.name.clone(),
            offered_a_second,
            in_flight,
            seconds,
            sagas_a_second: stage.sagas_a_second(),
            accepted_a_second: tally.accepted_in_window as f64 / seconds,
            sent: tally.sent,
            not_accepted: tally.not_accepted,
            orders: tally.orders.clone(),
            accepted_to_ended: percentiles(&tally.accepted_to_ended),
            intended_to_ended: percentiles(&tally.intended_to_ended),
            intended_to_accepted: percentiles(&tally.intended_to_accepted),
            sending: percentiles(&tally.sending),
            curve: tally.accepted_to_ended.curve(),
            timeline: tally.seconds.clone(),
            cost: stage.cost.clone(),
            drained_ms: stage.drained.map(|drained| drained.as_millis() as u64),
            events: stage.events.clone(),
        }
    }
}

impl Findings for Report {
    /// `bench.json`, `bench.md` and the plots.
    fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, text: String| put(directory, name, &text);
        put("bench.json", serde_json::to_string_pretty(self)?)?;
        put("bench.md", table::markdown(self))?;
        for scenario in &self.scenarios {
            let name = scenario.scenario.name();
            put(&format!("{name}-latency.svg"), plot::latency(scenario)?)?;
            put(
                &format!("{name}-throughput.svg"),
                plot::throughput(scenario)?,
            )?;
        }
        Ok(())
    }

    fn table(&self) -> String {
        table::markdown(self)
    }

    fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}
