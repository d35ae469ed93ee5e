//! Whether speed depends on how many sagas have ended: two systems side by side, of which one has a long history.
//!
//! ```text
//!  orders on both ─▶ history (loaded only) ─▶ round 1: empty, loaded ─▶ round 2: loaded, empty ─▶ … ─▶ checks ─▶ report
//!                                                 │
//!                                                 └ services start ─▶ settling ─▶ saturation ─▶ open loop ─▶ services stop
//! ```
//!
//! Each has a Postgres and a Kafka of its own; only one has services at any time, so neither costs the other anything.
//! Rounds are interleaved, since machines change their speed while they are measured, and medians are compared.

mod check;
mod history;
mod options;
mod report;
mod spread;
mod tables;
mod template;

pub use options::FlatOptions;
pub use report::Report;

use crate::{
    check::Accepted,
    progress::{say, update},
    report::StageReport,
    run,
    scenario::{PIECES, Scenario, Shop},
    session,
    stage::{Bench, Offer, Plan, Stage},
};
use anyhow::{Result, ensure};
use history::History;
use options::FlatPace;
use report::{Comparison, Round, Side};
use std::{sync::Arc, time::Duration};

/// Of the empty system's first saturation.
const SHARE: f64 = 0.7;
/// Enough orders in this time for every template, however slow the machine.
const TEMPLATES_TIME: Duration = Duration::from_secs(5);
const TEMPLATES_IN_FLIGHT: u64 = 100;

/// What came of it.
pub async fn run(options: &FlatOptions) -> Result<Report> {
    ensure!(
        options.servers.postgres_url.is_none() && options.servers.kafka_brokers.is_none(),
        "two systems are compared, each on private servers: neither --postgres-url nor --kafka-brokers can be given"
    );
    let names = Side::BOTH.map(Side::name);
    session::within_each(&options.servers, false, names, async |benches| {
        measure(&options.pace(), benches).await
    })
    .await
}

async fn measure(pace: &FlatPace, benches: &mut [Bench<'_>; 2]) -> Result<Report> {
    let (machine, servers) = (benches[0].machine.clone(), benches[0].servers.clone());
    let [empty, loaded] = benches;
    let mut mistakes = Vec::new();
    let mut before = Vec::new();
    for bench in [&mut *empty, &mut *loaded] {
        let (shop, wrong) = order_templates(bench).await?;
        mistakes.extend(wrong.into_iter().map(|what| format!("templates: {what}")));
        before.push(shop);
    }
    ensure!(mistakes.is_empty(), "{}", mistakes.join("; "));
    let seed = loaded.seed;
    let history = history::load(loaded.system, &before[1], pace.history, pace.days, seed).await?;
    let mut systems = [
        Measured::new(Side::Empty, empty),
        Measured::new(Side::Loaded, loaded),
    ];
    let (rounds, offered_a_second) = rounds(pace, &mut systems, &history).await?;
    for system in &mut systems {
        let side = system.side.name();
        let wrong = std::mem::take(&mut system.mistakes).into_iter();
        mistakes.extend(wrong.map(|what| format!("{side}: {what}")));
    }
    for mistake in &mistakes {
        say(&format!("  BROKEN: {mistake}"));
    }
    Ok(Report {
        machine,
        servers,
        history: history.loaded,
        offered_a_second,
        comparison: Comparison::of(&rounds),
        rounds,
        mistakes,
    })
}

/// Real orders, from which history is made; the empty system gets them, too, so that it differs by nothing else. The
/// services run, and are stopped.
async fn order_templates(bench: &mut Bench<'_>) -> Result<(Arc<Shop>, Vec<String>)> {
    update("  ordering what history is made from");
    let shop = Arc::new(Shop::new(Scenario::MixedShop));
    bench.system.restock(&shop.products, PIECES).await?;
    bench.system.restock(&shop.sold_out, 0).await?;
    let plan = Plan {
        name: "templates".to_owned(),
        offer: Offer::InFlight(TEMPLATES_IN_FLIGHT),
        warm_up: Duration::ZERO,
        measured: TEMPLATES_TIME,
    };
    let stage = bench.stage(&shop, plan).await?;
    let mut accepted = Accepted::default();
    accepted.add(&stage.tally);
    let mut wrong = run::mistakes(&stage.tally, stage.drained.is_some());
    wrong.extend(crate::check::scenario(bench.system, &shop, &accepted).await?);
    bench.system.stop_services()?;
    Ok((shop, wrong))
}

/// Their processes are new ones.
async fn start_services(bench: &mut Bench<'_>) -> Result<()> {
    bench.system.start_services().await?;
    bench.probe = bench.system.probe().await?;
    Ok(())
}

/// All rounds, and what the open loops were offered.
async fn rounds(
    pace: &FlatPace,
    systems: &mut [Measured<'_, '_>; 2],
    history: &History,
) -> Result<(Vec<Round>, f64)> {
    let mut rounds = Vec::new();
    let mut offered = None;
    for number in 1..=pace.rounds {
        for side in order_of(number) {
            say(&format!("round {number}, {}", side.name()));
            let system = &mut systems[side as usize];
            system.begin(pace).await?;
            let saturation = system.saturation(pace).await?;
            ensure!(saturation.sagas_a_second() > 0.0, "no saga ended");
            let rate = *offered.get_or_insert_with(|| SHARE * saturation.sagas_a_second());
            let open_loop = system.open_loop(pace, rate).await?;
            if number == pace.rounds {
                system.check(history).await?;
            }
            system.bench.system.stop_services()?;
            rounds.push(Round {
                number,
                side,
                saturation: StageReport::new(&saturation),
                open_loop: StageReport::new(&open_loop),
            });
        }
    }
    Ok((rounds, offered.unwrap_or_default()))
}

/// Who comes first has the cooler machine, or the warmer caches: they take turns.
fn order_of(round: u32) -> [Side; 2] {
    if round % 2 == 1 {
        [Side::Empty, Side::Loaded]
    } else {
        [Side::Loaded, Side::Empty]
    }
}

/// One of the two systems, as far as it has come.
struct Measured<'a, 'b> {
    side: Side,
    bench: &'a mut Bench<'b>,
    shop: Arc<Shop>,
    accepted: Accepted,
    is_stocked: bool,
    /// As the last closed loop found it.
    a_second: f64,
    mistakes: Vec<String>,
}

impl<'a, 'b> Measured<'a, 'b> {
    fn new(side: Side, bench: &'a mut Bench<'b>) -> Self {
        Self {
            side,
            bench,
            shop: Arc::new(Shop::new(Scenario::Confirm)),
            accepted: Accepted::default(),
            is_stocked: false,
            a_second: 0.0,
            mistakes: Vec::new(),
        }
    }

    async fn begin(&mut self, pace: &FlatPace) -> Result<()> {
        update("  starting the services");
        start_services(self.bench).await?;
        if !self.is_stocked {
            self.bench
                .system
                .restock(&self.shop.products, PIECES)
                .await?;
            self.is_stocked = true;
        }
        self.a_second = run::settle(self.bench, pace.smoke).await?;
        Ok(())
    }

    async fn saturation(&mut self, pace: &FlatPace) -> Result<Stage> {
        let crest = run::round(pace.in_flight, self.a_second, pace.round_max);
        let plan = Plan {
            name: format!("{} in flight", pace.in_flight),
            offer: Offer::InFlight(pace.in_flight),
            warm_up: pace.warm_up.max(crest.mul_f64(run::ROUNDS_WARM_UP)),
            measured: pace.measured.max(crest.mul_f64(run::ROUNDS_MEASURED)),
        };
        self.stage(plan).await
    }

    async fn open_loop(&mut self, pace: &FlatPace, per_second: f64) -> Result<Stage> {
        let plan = Plan {
            name: format!("{per_second:.0}/s"),
            offer: Offer::Rate { per_second },
            warm_up: pace.warm_up,
            measured: pace.measured,
        };
        self.stage(plan).await
    }

    async fn stage(&mut self, plan: Plan) -> Result<Stage> {
        let stage = self.bench.stage(&self.shop, plan).await?;
        self.accepted.add(&stage.tally);
        let wrong = run::mistakes(&stage.tally, stage.drained.is_some()).into_iter();
        self.mistakes
            .extend(wrong.map(|what| format!("{}: {what}", stage.plan.name)));
        Ok(stage)
    }

    async fn check(&mut self, history: &History) -> Result<()> {
        update("  checking that everything adds up");
        let wrong = crate::check::scenario(self.bench.system, &self.shop, &self.accepted).await?;
        self.mistakes.extend(wrong);
        if self.side == Side::Loaded {
            let wrong = check::history(self.bench.system, history).await?;
            self.mistakes.extend(wrong);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_first_is_second_in_the_next_round() {
        assert_eq!(order_of(1), [Side::Empty, Side::Loaded]);
        assert_eq!(order_of(2), [Side::Loaded, Side::Empty]);
        assert_eq!(order_of(3), order_of(1));
    }

    #[test]
    fn sides_are_numbered_as_their_systems_are() {
        assert_eq!(Side::BOTH.map(|side| side as usize), [0, 1]);
    }
}
