//! The backlog: live sagas that wait for a dead participant.
//!
//! ```text
//!  settle ─▶ others, idle, restarts ─▶ payment-svc dies ─▶ gather ─▶ others, idle, restarts ─▶ it comes back ─▶ check
//!            └─── without backlog ──┘                                └── with the backlog ──┘    drain, others
//! ```
//!
//! *Others* are sagas that do not need the participant: orders of products that are out of stock. These sagas, the idle
//! system, a restart and a takeover are each measured twice, without and with the backlog. The cost of the backlog is
//! thus a comparison on the same machine in the same hour.
//!
//! While the backlog waits, its sagas must not change: a queued command uses no attempt, and no saga is compensated,
//! timed out or parked. When the participant is back, each saga must be charged once. A run fails if any of this does
//! not hold.

mod comeback;
mod gather;
mod order;
mod restart;
mod state;
mod store;

use crate::{
    bench::Bench,
    check::Accepted,
    options::{BacklogOptions, Shared},
    progress::say,
    report::{self, Report},
    scenario::{Kind, Scenario},
    session,
    stage::Plan,
    system::Instance,
    workload::{self, Workload},
};
use anyhow::Result;
use comeback::Counted;
use saga_harness::system::Service;
use state::State;

/// The rate of the others' open loop, as a share of the closed loop's throughput.
const SHARE: f64 = 0.3;

/// Runs the study and returns its report.
pub async fn run(shared: &Shared, own: &BacklogOptions) -> Result<Report> {
    session::within(shared, shared.smoke, async |bench| {
        Box::pin(measure(shared, own, bench)).await
    })
    .await
}

async fn measure(shared: &Shared, own: &BacklogOptions, bench: &mut Bench<'_>) -> Result<Report> {
    workload::settle(bench, shared).await?;
    let mut others = Workload::new("others", bench, Scenario::OutOfStock).await?;
    let mut backlog = Workload::new("the backlog", bench, Scenario::Confirm).await?;
    let mut report = Report::new("backlog", bench);

    say("without a backlog");
    let (without, rate) = state(shared, bench, &mut others, "without", None).await?;

    say("the backlog gathers");
    let counted = Counted::now(bench).await?;
    let payment = Instance::first(Service::Payment);
    bench.system.kill_instance(payment)?;
    let gathered = gather::gather(bench, own, &backlog.shop, &mut report).await?;

    say("with the backlog");
    let (with, _) = state(shared, bench, &mut others, "with the backlog", Some(rate)).await?;
    state::describe(&mut report, &[without, with]);
    backlog.broken("", gather::disturbed(bench, &gathered).await?);

    say("payment-svc comes back");
    let trickle = Plan::open("meanwhile", own.trickle as f64, shared);
    let drained =
        comeback::measure(bench, &mut others, trickle, &gathered, counted, &mut report).await?;
    backlog.broken("", drained);

    backlog.accepted = Accepted {
        orders: [(Kind::Confirmed, gathered.accepted)].into(),
        unknown: gathered.unknown,
    };
    backlog.check("", bench).await?;
    others.check("", bench).await?;
    if shared.smoke {
        report.mistakes.extend(bench.audit().await?);
        report.mistakes.extend(bench.check_plans()?);
    }
    report.add(backlog);
    report.add(others);
    let stages = report.stages().iter();
    let closed = stages.filter(|stage| stage.in_flight.is_some());
    let (heads, costs) = report::costs(closed);
    report.table("Cost of others in the closed loops:", heads, costs);
    Ok(report)
}

/// Measures the other sagas, the idle system and restarts, and then the idle system again, which includes the restarts'
/// aftermath. Returns the rate of the open loop, too: without a given one it is a share of the closed loop's
/// throughput, and a later measurement at the same rate can be compared.
async fn state(
    shared: &Shared,
    bench: &mut Bench<'_>,
    others: &mut Workload,
    when: &'static str,
    rate: Option<f64>,
) -> Result<(State, f64)> {
    let in_flight = shared.orders_in_flight();
    let closed = Plan::closed(format!("{when}, {in_flight} in flight"), in_flight, shared);
    let closed = others.stage(bench, closed).await?.sagas_a_second;
    // With a rate of zero no order would ever be sent.
    let rate = rate.unwrap_or_else(|| (SHARE * closed).max(1.0));
    let open = Plan::open(format!("{when}, {rate:.0}/s"), rate, shared);
    others.stage(bench, open).await?;
    let idle = bench.idle(shared.idle()).await?;
    let restarts = restart::measure(bench, others, when).await?;
    let idle_after = bench.idle(shared.idle()).await?;
    let state = State {
        when,
        idle,
        restarts,
        idle_after,
    };
    Ok((state, rate))
}
