//! The scenarios, measured one after the other on a fresh system.

use crate::{
    check::{self, Accepted},
    floor::{self, Floor},
    kafka,
    load::Tally,
    options::{Pace, RunOptions},
    progress::{say, update},
    report::{Report, ScenarioReport, StageReport},
    scenario::{PIECES, Scenario, Shop},
    session,
    stage::{Bench, Offer, Plan, Stage},
};
use anyhow::{Result, bail};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// More orders in flight that bring less than this are not worth their latency: saturation is found.
const GAIN_MIN: f64 = 1.05;
const IDLE_PER_SECOND: f64 = 5.0;
/// Of saturation.
const SHARES: [(f64, &str); 2] = [(0.3, "30 %"), (0.7, "70 %")];
/// Of a closed loop: see [`round`].
pub const ROUNDS_WARM_UP: f64 = 1.5;
pub const ROUNDS_MEASURED: f64 = 3.0;
/// Times saturation: orders must be turned away, and everything else must go on.
const OVERLOAD: f64 = 2.0;
/// A given rate above this share of saturation shows nothing but a queue.
const RATE_SHARE_MAX: f64 = 0.9;
/// Before anything is measured: consumers join their groups, the broker compiles itself.
const SETTLING: Duration = Duration::from_secs(10);
const SETTLING_SMOKE: Duration = Duration::from_secs(3);
const SETTLING_IN_FLIGHT: u64 = 200;

/// What came of it.
pub async fn run(options: &RunOptions) -> Result<Report> {
    session::within(&options.servers, options.smoke, async |bench| {
        measure(options, bench).await
    })
    .await
}

async fn measure(options: &RunOptions, bench: &mut Bench<'_>) -> Result<Report> {
    let mut report = Report {
        machine: bench.machine.clone(),
        servers: bench.servers.clone(),
        scenarios: Vec::new(),
        mistakes: Vec::new(),
    };
    let stages = options.pace();
    let mut a_second = settle(bench, options.smoke).await?;
    for scenario in options.scenarios() {
        let measurement = Measurement::new(bench, &stages, scenario, a_second).await?;
        let (found, wrong) = measurement.all(!options.without_floor).await?;
        a_second = found.saturation_a_second;
        let wrong = wrong.into_iter();
        report
            .mistakes
            .extend(wrong.map(|what| format!("{}: {what}", scenario.name())));
        report.scenarios.push(found);
    }
    if options.smoke {
        report.mistakes.extend(looked_at_closely(bench).await?);
    }
    Ok(report)
}

/// What the independent checker finds, and the plans of all statements show: for runs of seconds.
pub async fn looked_at_closely(bench: &Bench<'_>) -> Result<Vec<String>> {
    update("  auditing");
    let found = bench.system.audit().await?.into_iter();
    let mut mistakes: Vec<String> = found.map(|what| format!("audit: {what}")).collect();
    if let Some(log) = bench.system.postgres_log() {
        let found = check::plans::check(log)?.into_iter();
        mistakes.extend(found.map(|what| format!("plans: {what}")));
    }
    Ok(mistakes)
}

/// How many sagas a second that came to.
pub async fn settle(bench: &mut Bench<'_>, smoke: bool) -> Result<f64> {
    let shop = Arc::new(Shop::new(Scenario::Confirm));
    bench.system.restock(&shop.products, PIECES).await?;
    let plan = Plan {
        name: "settling".to_owned(),
        offer: Offer::InFlight(SETTLING_IN_FLIGHT),
        warm_up: Duration::ZERO,
        measured: if smoke { SETTLING_SMOKE } else { SETTLING },
    };
    let stage = bench.stage(&shop, plan).await?;
    Ok(stage.sagas_a_second())
}

/// One scenario, as far as it has come.
struct Measurement<'a, 'b> {
    bench: &'a mut Bench<'b>,
    pace: &'a Pace,
    shop: Arc<Shop>,
    /// Of the topics, before the scenario.
    ends: BTreeMap<&'static str, i64>,
    accepted: Accepted,
    /// As the last closed loop found it, if only in another scenario.
    a_second: f64,
    stages: Vec<StageReport>,
    mistakes: Vec<String>,
}

impl<'a, 'b> Measurement<'a, 'b> {
    async fn new(
        bench: &'a mut Bench<'b>,
        pace: &'a Pace,
        scenario: Scenario,
        a_second: f64,
    ) -> Result<Self> {
        say(scenario.name());
        let shop = Arc::new(Shop::new(scenario));
        bench.system.restock(&shop.products, PIECES).await?;
        bench.system.restock(&shop.sold_out, 0).await?;
        let brokers = bench.system.brokers.clone();
        let ends =
            tokio::task::spawn_blocking(move || kafka::ends(&kafka::consumer(&brokers)?)).await??;
        Ok(Self {
            bench,
            pace,
            shop,
            ends,
            accepted: Accepted::default(),
            a_second,
            stages: Vec::new(),
            mistakes: Vec::new(),
        })
    }

    async fn all(mut self, with_floor: bool) -> Result<(ScenarioReport, Vec<String>)> {
        let saturation_a_second = self.saturation().await?;
        if saturation_a_second <= 0.0 {
            bail!("{}: no saga ended", self.shop.scenario().name());
        }
        for (share, name) in SHARES {
            self.open_loop(
                name.to_owned(),
                share * saturation_a_second,
                self.pace.measured,
            )
            .await?;
        }
        for rate in self.pace.rates.clone() {
            let rate = rate as f64;
            if rate <= RATE_SHARE_MAX * saturation_a_second {
                self.open_loop(format!("{rate}/s"), rate, self.pace.measured)
                    .await?;
            }
        }
        if self.shop.scenario() == Scenario::Confirm {
            let rate = OVERLOAD * saturation_a_second;
            self.open_loop("overload".to_owned(), rate, self.pace.measured)
                .await?;
        }
        self.open_loop("idle".to_owned(), IDLE_PER_SECOND, self.pace.idle_measured)
            .await?;
        update("  checking that everything adds up");
        let wrong = check::scenario(self.bench.system, &self.shop, &self.accepted).await?;
        self.mistakes.extend(wrong);
        for mistake in &self.mistakes {
            say(&format!("  BROKEN: {mistake}"));
        }
        let floor = if with_floor {
            self.floor(saturation_a_second).await?
        } else {
            None
        };
        let report = ScenarioReport {
            scenario: self.shop.scenario(),
            saturation_a_second,
            floor,
            stages: self.stages,
        };
        Ok((report, self.mistakes))
    }

    async fn floor(&mut self, saturation_a_second: f64) -> Result<Option<Floor>> {
        let scenario = self.shop.scenario();
        if !floor::is_measured(scenario) {
            return Ok(None);
        }
        update("  measuring the floor");
        let sagas = self.accepted.orders.values().sum();
        let ends = std::mem::take(&mut self.ends);
        let found =
            floor::measure(self.bench.system, scenario, ends, sagas, self.pace.floor).await?;
        if let Some(floor) = &found {
            say(&format!(
                "  floor {:.0} sagas/s: Postgres alone {:.0} ({}), Kafka alone {:.0} ({:.1} records a saga); reached {:.0} %",
                floor.together,
                floor.sql,
                floor.sql_by,
                floor.log,
                floor.records_a_saga,
                100.0 * saturation_a_second / floor.together,
            ));
        }
        Ok(found)
    }

    /// With more and more orders in flight, until that gains nothing.
    async fn saturation(&mut self) -> Result<f64> {
        let mut best: f64 = 0.0;
        for in_flight in self.pace.in_flight.clone() {
            let round = round(in_flight, self.a_second, self.pace.round_max);
            let stage = self
                .stage(Plan {
                    name: format!("{in_flight} in flight"),
                    offer: Offer::InFlight(in_flight),
                    warm_up: self.pace.warm_up.max(round.mul_f64(ROUNDS_WARM_UP)),
                    measured: self.pace.measured.max(round.mul_f64(ROUNDS_MEASURED)),
                })
                .await?;
            let found = stage.sagas_a_second();
            let enough = found < best * GAIN_MIN;
            best = best.max(found);
            self.a_second = best;
            if enough {
                break;
            }
        }
        Ok(best)
    }

    async fn open_loop(&mut self, name: String, per_second: f64, measured: Duration) -> Result<()> {
        let plan = Plan {
            name,
            offer: Offer::Rate { per_second },
            warm_up: self.pace.warm_up,
            measured,
        };
        self.stage(plan).await?;
        Ok(())
    }

    async fn stage(&mut self, plan: Plan) -> Result<Stage> {
        let stage = self.bench.stage(&self.shop, plan).await?;
        self.accepted.add(&stage.tally);
        let wrong = mistakes(&stage.tally, stage.drained.is_some()).into_iter();
        self.mistakes
            .extend(wrong.map(|what| format!("{}: {what}", stage.plan.name)));
        self.stages.push(StageReport::new(&stage));
        Ok(stage)
    }
}

/// How long it takes until as many sagas have ended as are in flight. They are sent all at once and go through the steps
/// side by side, so that less than a few rounds would show the crest of a wave or its trough.
pub fn round(in_flight: u64, a_second: f64, most: Duration) -> Duration {
    if a_second <= 0.0 {
        return most;
    }
    Duration::from_secs_f64(in_flight as f64 / a_second).min(most)
}

/// What a stage shows by itself, whatever the databases say.
pub fn mistakes(tally: &Tally, drained: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    if !drained || tally.missing() > 0 {
        wrong.push(format!(
            "{} accepted orders have not ended",
            tally.missing()
        ));
    }
    if tally.not_accepted.refused > 0 {
        wrong.push(format!(
            "{} orders were refused that should have been accepted",
            tally.not_accepted.refused
        ));
    }
    for (saga, kind, outcome) in &tally.wrong {
        wrong.push(format!(
            "saga {saga} was to be {}, and is {outcome:?}",
            kind.name()
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load::Outcome, scenario::Kind};
    use uuid::Uuid;

    #[test]
    fn a_round_is_as_long_as_the_sagas_in_flight_take() {
        let most = Duration::from_secs(20);
        assert_eq!(round(4_000, 2_000.0, most), Duration::from_secs(2));
        assert_eq!(round(4_000, 100.0, most), most);
        assert_eq!(round(4_000, 0.0, most), most);
    }

    #[test]
    fn a_stage_that_lost_something_is_broken() {
        let check = |spoil: fn(&mut Tally), drained: bool, expected: Option<&str>| {
            let mut tally = Tally::default();
            spoil(&mut tally);
            let found = mistakes(&tally, drained);
            match expected {
                Some(text) => assert!(found.iter().any(|one| one.contains(text)), "{found:?}"),
                None => assert!(found.is_empty(), "{found:?}"),
            }
        };
        check(|_| (), true, None);
        check(|_| (), false, Some("have not ended"));
        check(
            |tally| tally.orders.entry(Kind::Confirmed).or_default().accepted = 1,
            true,
            Some("1 accepted"),
        );
        check(
            |tally| tally.not_accepted.refused = 2,
            true,
            Some("2 orders were refused"),
        );
        check(
            |tally| {
                tally
                    .wrong
                    .push((Uuid::nil(), Kind::Confirmed, Outcome::Compensated));
            },
            true,
            Some("and is Compensated"),
        );
        // To be turned away because the system is busy is what an overload must come to.
        check(|tally| tally.not_accepted.pushed_back = 9, true, None);
    }
}
