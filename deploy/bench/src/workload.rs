//! A workload: the orders of one shop, in one stage after the other, and what they led to.

use crate::{
    bench::{Bench, Sending},
    check::{self, Accepted},
    options::Shared,
    progress,
    scenario::{Kind, PIECES, Scenario, Shop},
    stage::{Plan, Stage, join},
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};

/// The load that runs before anything is measured, while consumers join their groups and the broker's JVM compiles its
/// code.
const SETTLING: Duration = Duration::from_secs(10);
const SETTLING_SMOKE: Duration = Duration::from_secs(3);
const SETTLING_IN_FLIGHT: u64 = 200;

/// The orders of one shop, and their results so far.
pub struct Workload {
    /// The name that labels the stages and the mistakes; may be empty.
    pub name: String,
    pub shop: Arc<Shop>,
    pub accepted: Accepted,
    pub stages: Vec<Stage>,
    pub mistakes: Vec<String>,
}

impl Workload {
    /// Creates a shop, and stocks what its orders need.
    pub async fn new(
        name: impl Into<String>,
        bench: &Bench<'_>,
        scenario: Scenario,
    ) -> Result<Self> {
        let shop = Arc::new(Shop::new(scenario));
        let kinds = || scenario.kinds().iter().map(|(_, kind)| *kind);
        if kinds().any(Kind::in_stock) {
            bench.system.restock(&shop.products, PIECES).await?;
        }
        if !kinds().all(Kind::in_stock) {
            bench.system.restock(&shop.sold_out, 0).await?;
        }
        Ok(Self {
            name: name.into(),
            shop,
            accepted: Accepted::default(),
            stages: Vec::new(),
            mistakes: Vec::new(),
        })
    }

    /// Measures a stage.
    pub async fn stage(&mut self, bench: &mut Bench<'_>, plan: Plan) -> Result<Stage> {
        let mut stage = bench.stage(&self.shop, plan).await?;
        stage.workload.clone_from(&self.name);
        self.accepted.add(&stage.orders, stage.not_accepted.unknown);
        self.broken(&stage.name, stage.mistakes.clone());
        self.stages.push(stage.clone());
        Ok(stage)
    }

    /// Ends a load of the shop that was begun by [`Bench::begin`].
    pub async fn finish(
        &mut self,
        name: &str,
        bench: &mut Bench<'_>,
        sending: Sending,
    ) -> Result<()> {
        let (tally, drained) = bench.finish(sending).await?;
        self.accepted.add(&tally.orders, tally.not_accepted.unknown);
        self.broken(name, tally.mistakes(drained.is_some()));
        Ok(())
    }

    /// Checks that everything that was ordered so far adds up in the databases.
    pub async fn check(&mut self, when: &str, bench: &Bench<'_>) -> Result<()> {
        progress::update("  checking that everything adds up");
        let found = check::scenario(bench.system, &self.shop, &self.accepted).await?;
        self.broken(when, found);
        Ok(())
    }

    /// Records mistakes, and says them at once.
    pub fn broken(&mut self, when: &str, mistakes: Vec<String>) {
        for mistake in mistakes {
            let mistake = join(&[&self.name, when, &mistake], ": ");
            progress::say(&format!("  BROKEN: {mistake}"));
            self.mistakes.push(mistake);
        }
    }
}

/// Runs the load that settles a system, and returns how many sagas a second it reached.
pub async fn settle(bench: &mut Bench<'_>, shared: &Shared) -> Result<f64> {
    let measured = if shared.smoke {
        SETTLING_SMOKE
    } else {
        SETTLING
    };
    let plan = Plan {
        warm_up: Duration::ZERO,
        measured,
        ..Plan::closed("settling", SETTLING_IN_FLIGHT, shared)
    };
    let workload = Workload::new("", bench, Scenario::Confirm).await?;
    let stage = bench.stage(&workload.shop, plan).await?;
    Ok(stage.sagas_a_second)
}
