//! The floor: what this machine allows for the same sagas, if everything but their minimum cost nothing.
//!
//! S is Postgres alone, K is Kafka alone, each with the whole machine; together they share it, so a saga takes 1/S + 1/K.

mod log;
mod sql;

pub use log::TOPIC_PREFIX;
pub use sql::DATABASE;

use crate::{scenario::Scenario, system::System};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// All but the last in sagas a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// S.
    pub sql: f64,
    /// K.
    pub log: f64,
    pub together: f64,
    pub sql_by: &'static str,
    pub records_a_saga: f64,
}

/// For the paths whose least SQL is written down; the others are the same work in other proportions.
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

/// With the services idle. `before` are the topics' ends before the scenario, and `sagas` how many it has run since.
pub async fn measure(
    system: &System,
    scenario: Scenario,
    before: BTreeMap<&'static str, i64>,
    sagas: u64,
    time: Duration,
) -> Result<Option<Floor>> {
    let Some(script) = script(scenario) else {
        return Ok(None);
    };
    let (sql, sql_by) = sql::measure(system, script, time).await?;
    let (brokers, name) = (system.brokers.clone(), scenario.name());
    let parts = tokio::task::spawn_blocking(move || log::sample(&brokers, name, &before, sagas))
        .await
        .context("reading a sample of the records")??;
    let records_a_saga = parts.iter().map(log::Part::records_a_saga).sum();
    let log = log::measure(&system.brokers, parts, time).await?;
    Ok(Some(Floor {
        sql,
        log,
        together: together(sql, log),
        sql_by,
        records_a_saga,
    }))
}

/// Both on one machine, one after the other for each saga.
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
