//! The baseline: how many sagas a second this machine allows if only the minimum of SQL and records has to be done.
//!
//! S is the rate of Postgres alone, and K that of Kafka alone, each with the whole machine. Together they share the
//! machine, so a saga takes 1/S + 1/K.

mod log;
mod sql;

use crate::{scenario::Scenario, system::System};
use anyhow::{Context, Result};
use std::{collections::BTreeMap, time::Duration};

/// The baseline of a scenario. `sql`, `log` and `together` are in sagas a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// S: Postgres alone.
    pub sql: f64,
    /// K: Kafka alone.
    pub log: f64,
    pub together: f64,
    pub records_a_saga: f64,
}

/// Returns `true` for the scenarios whose minimum SQL exists. The other scenarios do the same work in other
/// proportions.
pub fn is_measured(scenario: Scenario) -> bool {
    script(scenario).is_some()
}

fn script(scenario: Scenario) -> Option<sql::Script> {
    match scenario {
        Scenario::Confirm => Some(sql::CONFIRM),
        Scenario::Decline => Some(sql::DECLINE),
        Scenario::OutOfStock
        | Scenario::PaymentFirst
        | Scenario::HotProduct
        | Scenario::TenItems
        | Scenario::MixedShop => None,
    }
}

/// Measures the baseline while the services are idle. `before` are the topics' ends before the scenario, and `sagas` is
/// how many sagas the scenario has run since.
pub async fn measure(
    system: &System,
    scenario: Scenario,
    before: BTreeMap<&'static str, i64>,
    sagas: u64,
    time: Duration,
) -> Result<Option<Baseline>> {
    let Some(script) = script(scenario) else {
        return Ok(None);
    };
    let Some(sql) = sql::measure(system, script, time).await? else {
        return Ok(None);
    };
    let (brokers, name) = (system.brokers.clone(), scenario.name());
    let parts = tokio::task::spawn_blocking(move || log::sample(&brokers, name, &before, sagas))
        .await
        .context("reading a sample of the records")??;
    let records_a_saga = parts.iter().map(|part| part.records_a_saga).sum();
    let log = log::measure(&system.brokers, parts, time).await?;
    Ok(Some(Baseline {
        sql,
        log,
        together: together(sql, log),
        records_a_saga,
    }))
}

/// Returns the combined rate: for each saga, the machine does the work of Postgres and then that of Kafka.
fn together(sql: f64, log: f64) -> f64 {
    if sql <= 0.0 || log <= 0.0 {
        return 0.0;
    }
    1.0 / (1.0 / sql + 1.0 / log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_of_a_saga_take_as_long_as_both() {
        let check = |sql: f64, log: f64, expected: f64| {
            assert!((together(sql, log) - expected).abs() < 0.01, "{sql} {log}");
        };
        check(20_000.0, 20_000.0, 10_000.0);
        check(30_000.0, 15_000.0, 10_000.0);
        check(17_000.0, 1e12, 17_000.0);
        check(0.0, 20_000.0, 0.0);
    }
}
