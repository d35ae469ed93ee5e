//! What several processes of each service make of the same load, and what a saga costs by partitions and by sagas.
//!
//! ```text
//!  a system for each count of partitions
//!    ├─ one copy ────────▶ groups settle ─▶ closed loop ─▶ check
//!    │                     └─ the same, four times as long ─▶ check
//!    ├─ two copies ──────▶ …      the others go on meanwhile, and give partitions away
//!    └─ four copies ─────▶ …
//! ```
//!
//! Copies of a service share its database and are members of one consumer group. Orders are sent to the first order-svc:
//! the others handle commands only.

mod groups;
mod options;
mod report;

pub use options::ScaleOptions;

use crate::{
    check::{self, Accepted},
    options::ServerOptions,
    progress::{say, update},
    report::StageReport,
    run,
    scenario::{PIECES, Scenario, Shop},
    session::{self, Interrupted},
    stage::{Bench, Offer, Plan, Stage},
    system::Instance,
};
use anyhow::{Result, ensure};
use groups::Groups;
use report::{ScaleReport, Step};
use saga_e2e::system::Service;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How much longer the stage is that shows whether a saga costs the same after many.
const LONGER: u32 = 4;
const SMOKE_IN_FLIGHT: u64 = 200;

/// After what `--smoke` makes of it.
#[derive(Clone, Debug)]
struct Pace {
    copies: Vec<usize>,
    partition_counts: Vec<i32>,
    in_flight: u64,
    warm_up: Duration,
    measured: Duration,
}

impl Pace {
    fn of(options: &ScaleOptions) -> Self {
        let seconds = Duration::from_secs;
        if options.smoke {
            return Self {
                copies: vec![1, 2],
                partition_counts: vec![2],
                in_flight: SMOKE_IN_FLIGHT,
                warm_up: seconds(1),
                measured: seconds(2),
            };
        }
        let mut copies: Vec<usize> = options.copies.iter().copied().map(usize::from).collect();
        // Copies are only ever added.
        copies.sort_unstable();
        copies.dedup();
        let counts = options.partition_counts.iter().copied();
        Self {
            copies,
            partition_counts: counts.map(i32::from).collect(),
            in_flight: options.in_flight,
            warm_up: seconds(options.warm_up),
            measured: seconds(options.seconds),
        }
    }

    /// A copy without a partition would have nothing to do.
    fn copies_for(&self, partitions: i32) -> impl Iterator<Item = usize> + '_ {
        let most = usize::try_from(partitions).unwrap_or(0);
        let all = self.copies.iter().copied();
        all.filter(move |copies| *copies <= most)
    }
}

/// What came of it.
pub async fn scale(options: &ScaleOptions) -> Result<ScaleReport> {
    let pace = Pace::of(options);
    for partitions in &pace.partition_counts {
        ensure!(
            pace.copies_for(*partitions).next().is_some(),
            "no count of copies fits {partitions} partitions: some would have nothing to do"
        );
    }
    let mut report = ScaleReport::default();
    let until = Instant::now() + options.servers.limit();
    for partitions in pace.partition_counts.clone() {
        say(&format!("{partitions} partitions"));
        let servers = ServerOptions {
            partitions,
            time_limit: Some(until.saturating_duration_since(Instant::now()).as_secs() / 60 + 1),
            ..options.servers.clone()
        };
        match with_partitions(options, &servers, &pace, &mut report).await {
            Err(error) if error.is::<Interrupted>() => return Err(error),
            // What the others have shown stands.
            Err(error) => report
                .mistakes
                .push(format!("{partitions} partitions: {error:#}")),
            Ok(()) => {}
        }
    }
    Ok(report)
}

async fn with_partitions(
    options: &ScaleOptions,
    servers: &ServerOptions,
    pace: &Pace,
    report: &mut ScaleReport,
) -> Result<()> {
    session::within(servers, false, async |bench| {
        report.machine = Some(bench.machine.clone());
        report.servers = Some(bench.servers.clone());
        run::settle(bench, options.smoke).await?;
        let mut scale = Scale::new(bench, pace, servers.partitions).await?;
        scale.all().await?;
        if options.smoke {
            update("  auditing");
            let found = scale.bench.system.audit().await?.into_iter();
            scale
                .mistakes
                .extend(found.map(|what| format!("audit: {what}")));
        }
        for mistake in &scale.mistakes {
            say(&format!("  BROKEN: {mistake}"));
        }
        report.steps.append(&mut scale.steps);
        report.mistakes.append(&mut scale.mistakes);
        Ok(())
    })
    .await
}

/// One system, as far as it has come.
struct Scale<'a, 'b> {
    bench: &'a mut Bench<'b>,
    pace: &'a Pace,
    partitions: i32,
    shop: Arc<Shop>,
    accepted: Accepted,
    /// That run already.
    copies: usize,
    steps: Vec<Step>,
    mistakes: Vec<String>,
}

impl<'a, 'b> Scale<'a, 'b> {
    async fn new(bench: &'a mut Bench<'b>, pace: &'a Pace, partitions: i32) -> Result<Self> {
        let shop = Arc::new(Shop::new(Scenario::Confirm));
        bench.system.restock(&shop.products, PIECES).await?;
        Ok(Self {
            bench,
            pace,
            partitions,
            shop,
            accepted: Accepted::default(),
            copies: 1,
            steps: Vec::new(),
            mistakes: Vec::new(),
        })
    }

    async fn all(&mut self) -> Result<()> {
        for copies in self.pace.copies_for(self.partitions) {
            let owned = self.grow(copies).await?;
            self.step(&owned, 1).await?;
            if copies == 1 {
                self.step(&owned, LONGER).await?;
            }
        }
        Ok(())
    }

    /// Until all of them own partitions.
    async fn grow(&mut self, copies: usize) -> Result<Groups> {
        update(&format!(
            "  {}: waiting until the partitions are shared",
            named(copies)
        ));
        let more = (self.copies..copies)
            .flat_map(|number| Service::ALL.map(move |service| Instance { service, number }));
        self.bench.system.start_instances(more).await?;
        self.copies = copies;
        self.bench.probe = self.bench.system.probe().await?;
        groups::shared(&self.bench.system.brokers, copies, self.partitions).await
    }

    async fn step(&mut self, owned: &Groups, longer: u32) -> Result<()> {
        let name = match longer {
            1 => named(self.copies),
            _ => format!("{}, {longer} times as long", named(self.copies)),
        };
        let before = groups::consumed(self.bench.system, self.copies).await?;
        let stage = self.stage(name.clone(), longer).await?;
        let after = groups::consumed(self.bench.system, self.copies).await?;
        update("  checking that everything adds up");
        let wrong = check::scenario(self.bench.system, &self.shop, &self.accepted).await?;
        let partitions = self.partitions;
        self.mistakes.extend(
            wrong
                .into_iter()
                .map(|what| format!("{partitions} partitions, {name}: {what}")),
        );
        self.steps.push(Step {
            partitions,
            copies: self.copies,
            times: longer,
            shares: groups::shares(owned, &before, &after, &stage.cost),
            stage: StageReport::new(&stage),
        });
        Ok(())
    }

    async fn stage(&mut self, name: String, longer: u32) -> Result<Stage> {
        let plan = Plan {
            name,
            offer: Offer::InFlight(self.pace.in_flight),
            warm_up: self.pace.warm_up,
            measured: self.pace.measured * longer,
        };
        let stage = self.bench.stage(&self.shop, plan).await?;
        self.accepted.add(&stage.tally);
        let wrong = run::mistakes(&stage.tally, stage.drained.is_some()).into_iter();
        let partitions = self.partitions;
        self.mistakes.extend(
            wrong.map(|what| format!("{partitions} partitions, {}: {what}", stage.plan.name)),
        );
        Ok(stage)
    }
}

fn named(copies: usize) -> String {
    match copies {
        1 => "one copy".to_owned(),
        _ => format!("{copies} copies"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_copy_is_without_a_partition() {
        let pace = Pace {
            copies: vec![1, 2, 4],
            partition_counts: Vec::new(),
            in_flight: 1,
            warm_up: Duration::ZERO,
            measured: Duration::ZERO,
        };
        let check = |partitions: i32, expected: &[usize]| {
            let found: Vec<usize> = pace.copies_for(partitions).collect();
            assert_eq!(found, expected, "{partitions}");
        };
        check(1, &[1]);
        check(2, &[1, 2]);
        check(3, &[1, 2]);
        check(16, &[1, 2, 4]);
    }
}
