//! Measures whether speed depends on how many sagas have ended: two systems side by side, one of which has a long
//! history.
//!
//! ```text
//!  orders on both ─▶ history (loaded only) ─▶ round 1: empty, loaded ─▶ round 2: loaded, empty ─▶ … ─▶ checks ─▶ report
//!                                                 │
//!                                                 └ services start ─▶ settling ─▶ saturation ─▶ open loop ─▶ services stop
//! ```
//!
//! Each system has its own Postgres and Kafka. Only one of them has services at any time, so they do not slow each
//! other down. Rounds are interleaved, since a machine's speed changes during a measurement, and medians are compared.

mod check;
mod compare;
mod loader;
mod spread;
mod tables;
mod template;

use crate::{
    bench::Bench,
    options::{HistoryOptions, Shared},
    progress::{say, update},
    report::{Report, heads},
    scenario::Scenario,
    session,
    stage::Plan,
    system::Instance,
    workload::{self, Workload},
};
use anyhow::{Result, ensure};
use compare::{Side, compare};
use loader::History;
use saga_harness::system::Service;
use std::time::Duration;

/// The rate of the open loops, as a share of the empty system's first saturation.
const SHARE: f64 = 0.7;
/// How long the template orders are sent: enough for every template, even on a slow machine.
const TEMPLATES_TIME: Duration = Duration::from_secs(5);
const TEMPLATES_IN_FLIGHT: u64 = 100;

/// Runs the comparison and returns its report.
pub async fn run(shared: &Shared, own: &HistoryOptions) -> Result<Report> {
    ensure!(
        !shared.has_given_servers(),
        "two systems are compared, each on private servers: neither --postgres-url nor --kafka-brokers can be given"
    );
    let names = Side::BOTH.map(Side::name);
    session::within_each(shared, false, names, async |[empty, loaded]| {
        order_templates(shared, empty).await?;
        let before = order_templates(shared, loaded).await?;
        let mut report = Report::new("history", empty);
        let history = loader::load(loaded, &before.shop, own, &mut report).await?;
        rounds(shared, own.rounds, [empty, loaded], &history, &mut report).await?;
        describe(&mut report);
        Ok(report)
    })
    .await
}

/// Sends the real orders from which history is made. The empty system gets them, too, so that the systems differ only
/// in their history. The services must run, and are stopped afterwards.
async fn order_templates(shared: &Shared, bench: &mut Bench<'_>) -> Result<Workload> {
    update("  sending the orders that history is made from");
    let mut workload = Workload::new("", bench, Scenario::MixedShop).await?;
    let plan = Plan {
        warm_up: Duration::ZERO,
        measured: TEMPLATES_TIME,
        ..Plan::closed("templates", TEMPLATES_IN_FLIGHT, shared)
    };
    workload.stage(bench, plan).await?;
    workload.check("templates", bench).await?;
    ensure!(
        workload.mistakes.is_empty(),
        "{}",
        workload.mistakes.join("; ")
    );
    bench.system.stop_services()?;
    Ok(workload)
}

/// Measures all rounds.
async fn rounds(
    shared: &Shared,
    count: u64,
    benches: [&mut Bench<'_>; 2],
    history: &History,
    report: &mut Report,
) -> Result<()> {
    let mut workloads = [None, None];
    let mut offered = None;
    for number in 1..=count {
        for side in order_of(number) {
            say(&format!("round {number}, {}", side.name()));
            let bench = &mut *benches[side as usize];
            bench.start(Service::ALL.map(Instance::first)).await?;
            let place = &mut workloads[side as usize];
            let workload = match place {
                Some(workload) => workload,
                None => place.insert(Workload::new(side.name(), bench, Scenario::Confirm).await?),
            };
            round(shared, number, bench, workload, &mut offered).await?;
            if number == count {
                workload.check("", bench).await?;
                if side == Side::Loaded {
                    let wrong = check::history(bench.system, history).await?;
                    workload.broken("", wrong);
                }
            }
            bench.system.stop_services()?;
        }
    }
    for workload in workloads.into_iter().flatten() {
        report.add(workload);
    }
    Ok(())
}

/// Measures one system in one round. The first round determines the rate of all open loops.
async fn round(
    shared: &Shared,
    number: u64,
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    offered: &mut Option<f64>,
) -> Result<()> {
    let a_second = workload::settle(bench, shared).await?;
    let in_flight = shared.orders_in_flight();
    let name = format!("round {number}, {in_flight} in flight");
    let plan = Plan::closed(name, in_flight, shared).for_rounds(a_second, shared.round_max());
    let saturation = workload.stage(bench, plan).await?.sagas_a_second;
    ensure!(saturation > 0.0, "no saga ended");
    let rate = *offered.get_or_insert(SHARE * saturation);
    let name = format!("round {number}, {rate:.0}/s");
    workload
        .stage(bench, Plan::open(name, rate, shared))
        .await?;
    Ok(())
}

/// The order of the two systems in a round. It alternates, since the first one has a cooler machine or warmer caches.
fn order_of(round: u64) -> [Side; 2] {
    if round % 2 == 1 {
        [Side::Empty, Side::Loaded]
    } else {
        [Side::Loaded, Side::Empty]
    }
}

fn describe(report: &mut Report) {
    let stages = report.stages();
    let rows = vec![
        compare("saturation, sagas/s", stages, |stage| {
            stage.in_flight.map(|_| stage.sagas_a_second)
        }),
        compare("open loop, p99 ms", stages, |stage| {
            stage.offered_a_second.and(stage.accepted_to_ended.p99_ms)
        }),
        compare("saturation, CPU µs a saga", stages, |stage| {
            stage.in_flight.and(stage.cost.system_cpu_us_a_saga)
        }),
    ];
    report.table(
        "Medians of the rounds, and the range of the rounds:",
        heads(
            "figure | empty | rounds, ± % | loaded | rounds, ± % | loaded by empty | within 10 %",
        ),
        rows,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_system_of_a_round_is_the_second_in_the_next() {
        assert_eq!(order_of(1), [Side::Empty, Side::Loaded]);
        assert_eq!(order_of(2), [Side::Loaded, Side::Empty]);
        assert_eq!(order_of(3), order_of(1));
    }

    #[test]
    fn sides_are_numbered_as_their_systems_are() {
        assert_eq!(Side::BOTH.map(|side| side as usize), [0, 1]);
    }
}
