//! Whether anything drifts in a long run, and what it does to the load that old partitions are dropped.
//!
//! ```text
//!  saturation ─▶ a share of it, for minutes ─▶ check ─▶ partitions are aged ─▶ the same load while they go ─▶ check
//!                  └ sampler: every minute      │                                └ vigil: when each goes, who waits
//!                     └▶ drift                  └ services stand still               └▶ stalls around each
//! ```
//!
//! Nothing is forced: the services' own upkeep drops the partitions, with the retention and at the times that it has by
//! default. Only the past is made up, see [`aging`].

mod aging;
mod drift;
mod options;
mod report;
mod retention;
mod sampler;
mod vigil;

pub use options::SoakOptions;

use crate::{
    check::{self, Accepted},
    load::{Percentiles, Stall, Trace},
    progress::{say, update},
    report::StageReport,
    run,
    scenario::{PIECES, Scenario, Shop},
    session,
    stage::{Bench, Offer, Plan, Stage},
};
use aging::Aging;
use anyhow::{Result, ensure};
use report::SoakReport;
use sampler::{Reading, Sample, Sampler};
use std::{sync::Arc, time::Duration};

/// How long everything takes, after what `--smoke` makes of it.
#[derive(Clone, Debug)]
struct Pace {
    in_flight: u64,
    /// Of the closed loop, and of each of the open ones before it is measured.
    warm_up: Duration,
    saturation: Duration,
    measured: Duration,
    /// Between two samples.
    interval: Duration,
    /// Samples that say nothing about drift: caches fill, tables reach their size.
    settling: usize,
    aging: Aging,
    /// After the last partition became old enough: upkeep looks twice a minute, first the orchestrator's, then those
    /// that learn of it by commands; who uses a table may keep it from going for a round.
    tail: Duration,
}

const SMOKE_IN_FLIGHT: u64 = 200;
const SMOKE_ROWS: u32 = 2_000;
/// Rows a second that are made up at least, in all databases together: how far ahead a partition's end must be put so
/// that it is reached only under load.
const ROWS_A_SECOND: u64 = 20_000;
/// Of a restart, and a quiet time under load before the first partition goes.
const LEAD: Duration = Duration::from_mins(1);

impl Pace {
    fn of(options: &SoakOptions) -> Self {
        let seconds = Duration::from_secs;
        let partitions = options.aged_partitions;
        if options.smoke {
            let spacing = seconds(1);
            return Self {
                in_flight: SMOKE_IN_FLIGHT,
                warm_up: seconds(2),
                saturation: seconds(3),
                measured: seconds(12),
                interval: seconds(2),
                settling: 2,
                aging: Aging {
                    partitions,
                    rows: options.aged_rows.min(SMOKE_ROWS),
                    // Old enough already: nobody waits for them to become it.
                    lead_ms: -i64::from(partitions) * 1_000,
                    spacing,
                },
                tail: seconds(60),
            };
        }
        let rows =
            aging::TABLES.len() as u64 * u64::from(partitions) * u64::from(options.aged_rows);
        let lead = LEAD + seconds(rows / ROWS_A_SECOND);
        Self {
            in_flight: options.in_flight,
            warm_up: seconds(10),
            saturation: seconds(20),
            measured: seconds(options.minutes * 60),
            interval: seconds(60),
            settling: 2,
            aging: Aging {
                partitions,
                rows: options.aged_rows,
                lead_ms: lead.as_millis() as i64,
                spacing: seconds(60),
            },
            tail: seconds(105),
        }
    }
}

/// What came of it.
pub async fn soak(options: &SoakOptions) -> Result<SoakReport> {
    session::within(&options.servers, false, async |bench| {
        let pace = Pace::of(options);
        run::settle(bench, options.smoke).await?;
        let soak = Soak::new(bench, pace).await?;
        soak.all(options).await
    })
    .await
}

/// One soak, as far as it has come.
struct Soak<'a, 'b> {
    bench: &'a mut Bench<'b>,
    pace: Pace,
    shop: Arc<Shop>,
    accepted: Accepted,
    mistakes: Vec<String>,
}

impl<'a, 'b> Soak<'a, 'b> {
    async fn new(bench: &'a mut Bench<'b>, pace: Pace) -> Result<Self> {
        let shop = Arc::new(Shop::new(Scenario::Confirm));
        bench.system.restock(&shop.products, PIECES).await?;
        Ok(Self {
            bench,
            pace,
            shop,
            accepted: Accepted::default(),
            mistakes: Vec::new(),
        })
    }

    async fn all(mut self, options: &SoakOptions) -> Result<SoakReport> {
        let saturation = self.saturation().await?;
        let rate = options.rate.map_or_else(
            || options.share * saturation.sagas_a_second(),
            |rate| rate as f64,
        );
        ensure!(rate > 0.0, "no saga ended");
        let (stage, samples) = self.long(rate).await?;
        self.check("soak").await?;
        if options.smoke {
            update("  auditing");
            let found = self.bench.system.audit().await?.into_iter();
            self.mistakes
                .extend(found.map(|what| format!("audit: {what}")));
        }
        let retention = if options.without_retention {
            None
        } else {
            let found = Box::pin(retention::under_load(&mut self, rate)).await?;
            self.check("retention").await?;
            Some(found)
        };
        for mistake in &self.mistakes {
            say(&format!("  BROKEN: {mistake}"));
        }
        Ok(SoakReport {
            machine: self.bench.machine.clone(),
            servers: self.bench.servers.clone(),
            saturation: StageReport::new(&saturation),
            rate,
            interval_seconds: self.pace.interval.as_secs(),
            drift: drift::of(&samples, self.pace.settling),
            stage: StageReport::new(&stage),
            samples,
            retention,
            mistakes: self.mistakes,
        })
    }

    async fn saturation(&mut self) -> Result<Stage> {
        self.stage(Plan {
            name: format!("{} in flight", self.pace.in_flight),
            offer: Offer::InFlight(self.pace.in_flight),
            warm_up: self.pace.warm_up,
            measured: self.pace.saturation,
        })
        .await
    }

    async fn long(&mut self, per_second: f64) -> Result<(Stage, Vec<Sample>)> {
        let plan = Plan {
            name: "soak".to_owned(),
            offer: Offer::Rate { per_second },
            warm_up: self.pace.warm_up,
            measured: self.pace.measured,
        };
        let interval = self.pace.interval;
        let from = self.bench.flight.now_us() + plan.warm_up.as_micros() as u64;
        let until = from + plan.measured.as_micros() as u64;
        let sampler = Sampler::new(self.bench, interval).await?;
        self.bench.flight.keep_trace();
        let (stage, readings) =
            Box::pin(async { tokio::try_join!(self.stage(plan), sampler.run(from, until)) })
                .await?;
        let trace = self.bench.flight.take_trace();
        Ok((stage, samples(&readings, &trace)))
    }

    async fn stage(&mut self, plan: Plan) -> Result<Stage> {
        let stage = self.bench.stage(&self.shop, plan).await?;
        self.accepted.add(&stage.tally);
        let wrong = run::mistakes(&stage.tally, stage.drained.is_some()).into_iter();
        self.mistakes
            .extend(wrong.map(|what| format!("{}: {what}", stage.plan.name)));
        Ok(stage)
    }

    async fn check(&mut self, when: &str) -> Result<()> {
        update("  checking that everything adds up");
        let wrong = check::scenario(self.bench.system, &self.shop, &self.accepted).await?;
        self.mistakes
            .extend(wrong.into_iter().map(|what| format!("{when}: {what}")));
        Ok(())
    }
}

/// Each from one reading to the next.
fn samples(readings: &[Reading], trace: &Trace) -> Vec<Sample> {
    let began_us = readings.first().map_or(0, |reading| reading.at_us);
    let stalls = trace.stalls();
    readings
        .windows(2)
        .map(|pair| {
            let time = pair[0].at_us..pair[1].at_us;
            let latency: Percentiles = trace.latency(&time).percentiles();
            let longest = stalls.iter().filter(|stall| time.contains(&stall.to_us));
            let longest_us = longest.map(Stall::us).max();
            Sample::new(&pair[0], &pair[1], began_us, latency, longest_us)
        })
        .collect()
}
