//! A crowd of live sagas that wait for a dead participant.
//!
//! ```text
//!  settle ─▶ others, idle, restarts ─▶ payment-svc dies ─▶ gather ─▶ others, idle, restarts ─▶ it comes back ─▶ check
//!            └──── without a crowd ┘                                 └── with the crowd ──┘    drain, others
//! ```
//!
//! *Others* are sagas that do not need the participant: orders of what is out of stock. Whatever is measured of them, of
//! the idle system, of a restart and of a takeover is measured twice, so that what the crowd costs is a comparison on the
//! same machine in the same hour.
//!
//! While the crowd waits, nothing may happen to it: a queued command burns no attempt, and no saga is compensated, timed
//! out or parked. That, and that each is charged once when the participant is back, is what a run can fail by.

mod comeback;
mod gather;
mod idle;
mod options;
mod order;
mod others;
mod report;
mod restart;
mod store;

pub use options::CrowdOptions;

use crate::{
    check::{self, Accepted},
    progress::{say, update},
    run,
    scenario::{Kind, PIECES, Scenario, Shop},
    session,
    stage::Bench,
    system::{Instance, database},
};
use anyhow::Result;
use comeback::Counted;
use gather::Crowd;
use options::Pace;
use others::Others;
use report::{CrowdReport, Standing};
use saga_e2e::system::Service;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::Waiting;
use tokio::time::sleep;

/// Every command is looked after when it would have timed out; a million of them at some thousands a second.
const QUEUED_LIMIT: Duration = Duration::from_mins(15);
const QUEUED_POLL: Duration = Duration::from_secs(2);

/// What came of it.
pub async fn run(options: &CrowdOptions) -> Result<CrowdReport> {
    session::within(&options.servers, options.smoke, async |bench| {
        Box::pin(measure(options, bench)).await
    })
    .await
}

async fn measure(options: &CrowdOptions, bench: &mut Bench<'_>) -> Result<CrowdReport> {
    let pace = options.pace();
    run::settle(bench, options.smoke).await?;
    let mut others = Others::new(bench).await?;
    let shop = Arc::new(Shop::new(Scenario::Confirm));
    bench.system.restock(&shop.products, PIECES).await?;
    let mut mistakes = Vec::new();

    say("without a crowd");
    let without = standing(bench, &mut others, &pace, None).await?;

    say("the crowd gathers");
    let counted = Counted::now(bench).await?;
    let payment = Instance::first(Service::Payment);
    bench.system.kill_instance(payment)?;
    let (crowd, gathering) = gather::gather(bench, &pace, &shop).await?;
    say(&format!("  {}", gathering.told()));

    say("with the crowd");
    let rate = without.speed.open.offered_a_second;
    let with = standing(bench, &mut others, &pace, rate).await?;
    mistakes.extend(disturbed(&waiting(bench, &crowd).await?, &crowd));

    say("payment-svc comes back");
    let comeback = comeback::measure(bench, &mut others, &pace, &crowd, counted).await?;
    say(&format!("  {}", comeback.told()));
    mistakes.extend(stormed(comeback.ended, comeback.charges, &crowd));

    update("  checking that everything adds up");
    mistakes.extend(checked(bench, &shop, &crowd, &mut others).await?);
    if options.smoke {
        mistakes.extend(run::looked_at_closely(bench).await?);
    }
    Ok(CrowdReport {
        machine: bench.machine.clone(),
        servers: bench.servers.clone(),
        without,
        gathering,
        with,
        comeback,
        mistakes,
    })
}

/// What others, an idle system and restarts are like; and an idle system after the restarts, with what they leave behind.
async fn standing(
    bench: &mut Bench<'_>,
    others: &mut Others,
    pace: &Pace,
    rate: Option<f64>,
) -> Result<Standing> {
    let when = if rate.is_some() { "with" } else { "without" };
    let speed = others.speed(bench, pace, when, rate).await?;
    let idle = idle::look(bench, pace.idle).await?;
    let restarts = restart::measure(bench, others, when).await?;
    let idle_after = idle::look(bench, pace.idle).await?;
    say(&format!(
        "  {when}: idle {:.2} cores, after the restarts {:.2}",
        idle.system_cores(),
        idle_after.system_cores()
    ));
    Ok(Standing {
        speed,
        idle,
        restarts,
        idle_after,
    })
}

/// As soon as all of it is known to be queued, or not within the limit.
async fn waiting(bench: &Bench<'_>, crowd: &Crowd) -> Result<Waiting> {
    let mut database = bench
        .system
        .connect(&database(Service::Orchestrator))
        .await?;
    let began = Instant::now();
    loop {
        update("  waiting until all of it is known to be queued");
        let waiting = store::waiting(&mut database, crowd.span).await?;
        if waiting.queued == waiting.sagas || began.elapsed() > QUEUED_LIMIT {
            return Ok(waiting);
        }
        sleep(QUEUED_POLL).await;
    }
}

/// What has happened to the crowd while it waited, although nothing may.
fn disturbed(waiting: &Waiting, crowd: &Crowd) -> Vec<String> {
    let sagas = waiting.sagas.cast_unsigned();
    let mut wrong = Vec::new();
    if sagas < crowd.accepted || sagas > crowd.accepted + crowd.unknown {
        wrong.push(format!(
            "the crowd: {} were accepted, and {sagas} are live",
            crowd.accepted
        ));
    }
    let rules = [
        (waiting.running, "are running"),
        (waiting.on_payment, "wait for payment-svc"),
        (waiting.queued, "are known to be queued"),
        (waiting.first_attempt, "are at their first attempt"),
    ];
    for (count, what) in rules {
        if count != waiting.sagas {
            wrong.push(format!(
                "the crowd: of {sagas} that wait, only {count} {what}"
            ));
        }
    }
    wrong
}

/// What has gone wrong when it came back. Commands that were sent again because an answer was late are none: that is a
/// matter of how busy the machine was.
fn stormed(ended: u64, charges: i64, crowd: &Crowd) -> Vec<String> {
    let mut wrong = Vec::new();
    let possible = crowd.accepted..=crowd.accepted + crowd.unknown;
    if !possible.contains(&ended) {
        wrong.push(format!(
            "the crowd: {} were accepted, and {ended} have ended",
            crowd.accepted
        ));
    }
    if !possible.contains(&charges.cast_unsigned()) {
        wrong.push(format!(
            "the crowd: {} were accepted, and the gateway charged {charges} times",
            crowd.accepted
        ));
    }
    wrong
}

async fn checked(
    bench: &Bench<'_>,
    shop: &Shop,
    crowd: &Crowd,
    others: &mut Others,
) -> Result<Vec<String>> {
    let accepted = Accepted {
        orders: [(Kind::Confirmed, crowd.accepted)].into(),
        unknown: crowd.unknown,
    };
    let named = |name: &'static str| move |what: String| format!("{name}: {what}");
    let mut wrong = std::mem::take(&mut others.mistakes);
    let found = check::scenario(bench.system, shop, &accepted).await?;
    wrong.extend(found.into_iter().map(named("the crowd")));
    let found = check::scenario(bench.system, &others.shop, &others.accepted).await?;
    wrong.extend(found.into_iter().map(named("others")));
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Span;

    fn crowd() -> Crowd {
        Crowd {
            span: Span::new(0, 1),
            accepted: 10,
            unknown: 1,
        }
    }

    #[test]
    fn nothing_may_happen_to_a_crowd_that_waits() {
        let undisturbed = Waiting {
            sagas: 10,
            running: 10,
            on_payment: 10,
            queued: 10,
            first_attempt: 10,
        };
        let check = |spoil: fn(&mut Waiting), expected: Option<&str>| {
            let mut waiting = undisturbed;
            spoil(&mut waiting);
            let found = disturbed(&waiting, &crowd());
            match expected {
                Some(text) => assert!(found.iter().any(|one| one.contains(text)), "{found:?}"),
                None => assert!(found.is_empty(), "{found:?}"),
            }
        };
        check(|_| (), None);
        check(|waiting| waiting.running = 9, Some("only 9 are running"));
        check(|waiting| waiting.on_payment = 8, Some("only 8 wait"));
        check(|waiting| waiting.queued = 7, Some("only 7 are known"));
        check(|waiting| waiting.first_attempt = 0, Some("only 0 are at"));
        check(|waiting| waiting.sagas = 9, Some("and 9 are live"));
        check(|waiting| waiting.sagas = 12, Some("and 12 are live"));
    }

    #[test]
    fn every_saga_of_a_crowd_ends_and_is_charged_once() {
        let check = |ended: u64, charges: i64, wrong: usize| {
            let found = stormed(ended, charges, &crowd());
            assert_eq!(found.len(), wrong, "{found:?}");
        };
        check(10, 10, 0);
        check(11, 11, 0);
        check(9, 10, 1);
        check(10, 12, 1);
        check(9, 20, 2);
    }
}
