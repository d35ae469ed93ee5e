//! Measures how several processes of each service carry the same load, and what a saga costs by partitions and by
//! sagas.
//!
//! ```text
//!  a system for each count of partitions
//!    ├─ one copy ────────▶ groups settle ─▶ closed loop ─▶ check
//!    │                     └─ the same, four times as long ─▶ check
//!    ├─ two copies ──────▶ …      the others go on meanwhile, and hand partitions over
//!    └─ four copies ─────▶ …
//! ```
//!
//! Copies of a service share its database and are members of one consumer group. Orders are sent to the first
//! order-svc; its other copies handle commands only.

use crate::{
    bench::Bench,
    groups::{self, Groups, Records},
    options::{ScaleOptions, Shared},
    progress::{say, update},
    report::{self, Cell, Report, Row, heads, row},
    scenario::Scenario,
    session::{self, Interrupted},
    stage::{Plan, Stage},
    system::Instance,
    workload::{self, Workload},
};
use anyhow::{Context, Result, ensure};
use saga_harness::system::Service;
use std::time::Instant;

/// How many times longer the stage is that shows whether a saga still costs the same after many sagas.
const LONGER: u32 = 4;

/// The report so far: the first system that starts creates it.
#[derive(Default)]
struct Results {
    report: Option<Report>,
    /// The rows of each copy's share.
    shares: Vec<Row>,
    mistakes: Vec<String>,
}

/// Runs the study and returns its report.
pub async fn run(shared: &Shared, own: &ScaleOptions) -> Result<Report> {
    for partitions in &own.partition_counts {
        ensure!(
            !own.copies_for(*partitions).is_empty(),
            "no count of copies fits {partitions} partitions: some would have nothing to do"
        );
    }
    let mut results = Results::default();
    let until = Instant::now() + shared.limit();
    for partitions in own.partition_counts.iter().copied() {
        say(&format!("{partitions} partitions"));
        let servers = Shared {
            partitions,
            time_limit: Some(until.saturating_duration_since(Instant::now()).as_secs() / 60 + 1),
            ..shared.clone()
        };
        match with_partitions(&servers, own, &mut results).await {
            Err(error) if error.is::<Interrupted>() => return Err(error),
            // The results of other counts of partitions remain valid.
            Err(error) => results
                .mistakes
                .push(format!("{partitions} partitions: {error:#}")),
            Ok(()) => {}
        }
    }
    let none = results.mistakes.join("; ");
    let mut report = results.report.context(none)?;
    report.mistakes.extend(results.mistakes);
    let (cost_heads, costs) = report::costs(report.stages());
    report.text("The servers differ in their partitions; those described are the first ones.");
    report.table(
        "Cost by copies, partitions and sagas; of a service all of its copies together:",
        cost_heads,
        costs,
    );
    let mut names = heads("partitions, copies, process");
    names.extend(Service::ALL.map(|service| service.name().to_owned()));
    report.table(
        "Each process's share: partitions / records read, warm-up and drain included / CPU µs a saga.",
        names,
        results.shares,
    );
    Ok(report)
}

async fn with_partitions(shared: &Shared, own: &ScaleOptions, results: &mut Results) -> Result<()> {
    let name = format!("{} partitions", shared.partitions);
    session::within(shared, false, async |bench| {
        workload::settle(bench, shared).await?;
        let mut workload = Workload::new(name, bench, Scenario::Confirm).await?;
        let mut running = 1;
        for copies in own.copies_for(shared.partitions) {
            let groups = grow(bench, running..copies, shared.partitions).await?;
            running = copies;
            let plan = Plan::closed(named(copies), shared.orders_in_flight(), shared);
            let mut plans = vec![plan.clone()];
            if copies == 1 {
                plans.push(Plan {
                    name: format!("{}, {LONGER} times as long", plan.name),
                    measured: plan.measured * LONGER,
                    ..plan
                });
            }
            for plan in plans {
                let rows = step(bench, &mut workload, plan, copies, &groups).await?;
                results.shares.extend(rows);
            }
        }
        if shared.smoke {
            let found = bench.audit().await?;
            workload.broken("", found);
        }
        results
            .report
            .get_or_insert_with(|| Report::new("scale", bench))
            .add(workload);
        Ok(())
    })
    .await
}

/// Starts further copies, and waits until each copy owns partitions.
async fn grow(
    bench: &mut Bench<'_>,
    more: std::ops::Range<usize>,
    partitions: i32,
) -> Result<Groups> {
    let copies = more.end;
    update(&format!(
        "  {}: waiting until the partitions are shared",
        named(copies)
    ));
    let more =
        more.flat_map(|number| Service::ALL.map(move |service| Instance { service, number }));
    bench.start(more).await?;
    groups::shared(&bench.system.brokers, &Service::ALL, copies, partitions).await
}

/// Measures a stage and checks its orders. Returns the share of each copy if there are several.
async fn step(
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    plan: Plan,
    copies: usize,
    groups: &Groups,
) -> Result<Vec<Row>> {
    let before: Records = groups::consumed(bench.system, copies).await?;
    let stage = workload.stage(bench, plan).await?;
    let after = groups::consumed(bench.system, copies).await?;
    workload.check(&stage.name, bench).await?;
    let numbers = 0..if copies > 1 { copies } else { 0 };
    let row = |number: usize| shares(number, groups, &before, &after, &stage);
    Ok(numbers.map(row).collect())
}

/// Returns the row of the copies with this number: what each of them owned, read and used in a stage.
fn shares(number: usize, owned: &Groups, before: &Records, after: &Records, stage: &Stage) -> Row {
    let cell = |service: Service| {
        let instance = Instance { service, number };
        let name = instance.name();
        let records = |all: &Records| all.get(&instance).copied().unwrap_or(0);
        let read = records(after).saturating_sub(records(before));
        let process = stage.cost.processes.get(&name);
        Cell::from(format!(
            "{} / {} / {}",
            owned.get(&name).copied().unwrap_or(0),
            Cell::from(read),
            Cell::from(process.map(|process| process.cpu_us_a_saga)),
        ))
    };
    let mut row = row![format!("{}, {}", stage.label(), number + 1)];
    row.extend(Service::ALL.map(cell));
    row
}

fn named(copies: usize) -> String {
    match copies {
        1 => "one copy".to_owned(),
        _ => format!("{copies} copies"),
    }
}
