//! The backlog gathers: orders are sent as fast as they are accepted, until all of their sagas wait for the dead
//! participant.

use super::store::{self, Span, Waiting};
use crate::{
    bench::Bench,
    load::{Intake, IntakeResult},
    measure::{Cost, Memory},
    options::BacklogOptions,
    progress,
    report::{Cell, Report},
    scenario::Shop,
};
use anyhow::{Context, Result, bail};
use saga_harness::{random::Random, system::Service};
use sqlx::PgConnection;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;

const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// The time between two counts. Each counts the whole backlog.
const COUNT_PERIOD: Duration = Duration::from_secs(2);
/// Gathering fails if no further saga has come to wait for this long.
const STANDSTILL: Duration = Duration::from_mins(2);
/// How long to wait until all sagas are known to be queued. A command's timer fires when the command would have timed
/// out; a million timers are handled at some thousands a second.
const QUEUED_LIMIT: Duration = Duration::from_mins(15);

/// The sagas of a backlog that waits.
pub struct Gathered {
    pub span: Span,
    /// Orders answered with 201. `unknown` counts those whose answer was lost.
    pub accepted: u64,
    pub unknown: u64,
}

pub async fn gather(
    bench: &mut Bench<'_>,
    own: &BacklogOptions,
    shop: &Arc<Shop>,
    report: &mut Report,
) -> Result<Gathered> {
    let mut database = bench.system.database_of(Service::Orchestrator).await?;
    let from_ms = store::now_ms(&mut database).await?;
    let began = Instant::now();
    let before = bench.probe.snapshot().await?;
    let (taken, memory) = take_in(bench, own, shop).await?;
    let accepted_seconds = began.elapsed().as_secs_f64();
    let gathered = Gathered {
        span: Span::new(from_ms, store::now_ms(&mut database).await?),
        accepted: taken.accepted,
        unknown: taken.not_accepted.unknown,
    };
    wait_until_all_wait(bench, &mut database, &gathered).await?;
    let waiting_seconds = began.elapsed().as_secs_f64();
    let after = bench.probe.snapshot().await?;
    let bytes = store::live_bytes(&mut database).await? as f64;
    let text = format!(
        "{} sagas wait after {} s ({} a second), accepted within {} s with {} turned away; the live table has {} MiB, {} \
         bytes a saga",
        Cell::from(gathered.accepted),
        Cell::from(waiting_seconds),
        Cell::Whole(gathered.accepted as f64 / waiting_seconds),
        Cell::from(accepted_seconds),
        Cell::from(taken.not_accepted.pushed_back),
        Cell::Whole(bytes / f64::from(1 << 20)),
        Cell::Whole(bytes / gathered.accepted.max(1) as f64),
    );
    progress::say(&format!("  {text}"));
    report.text(format!("The backlog: {text}."));
    report.figure("acceptedBySecond", taken.seconds);
    let cost = Cost::between(&before, &after, &memory, gathered.accepted);
    report.figure("gathering", serde_json::to_value(cost)?);
    Ok(gathered)
}

async fn take_in(
    bench: &mut Bench<'_>,
    own: &BacklogOptions,
    shop: &Arc<Shop>,
) -> Result<(IntakeResult, Memory)> {
    let accepted = Arc::new(AtomicU64::new(0));
    let intake = Intake {
        address: bench.system.address(Service::Order),
        shop: Arc::clone(shop),
        random: Random::new(bench.seed, "backlog"),
        customers: own.customers,
        orders: own.sagas,
        accepted: Arc::clone(&accepted),
    };
    let sending = tokio::task::spawn_blocking(move || intake.run());
    let mut memory = Memory::default();
    while !sending.is_finished() {
        memory.rise_to(bench.probe.memory());
        bench.system.check_running()?;
        let so_far = accepted.load(Ordering::Relaxed);
        progress::update(&format!("  gathering, {so_far} accepted"));
        sleep(SAMPLE_PERIOD).await;
    }
    let taken = sending.await.context("the load generator")??;
    Ok((taken, memory))
}

async fn wait_until_all_wait(
    bench: &mut Bench<'_>,
    database: &mut PgConnection,
    gathered: &Gathered,
) -> Result<()> {
    let accepted = gathered.accepted;
    let (mut most, mut moved) = (0, Instant::now());
    loop {
        let Waiting { on_payment, .. } = store::waiting(database, gathered.span).await?;
        if on_payment.cast_unsigned() >= accepted {
            return Ok(());
        }
        if on_payment > most {
            (most, moved) = (on_payment, Instant::now());
        }
        if moved.elapsed() > STANDSTILL {
            bail!("only {on_payment} of {accepted} sagas have come to wait for payment-svc");
        }
        bench.system.check_running()?;
        progress::update(&format!("  gathering, {on_payment} wait"));
        sleep(COUNT_PERIOD).await;
    }
}

/// Waits until all sagas of the backlog are known to be queued, up to a limit. Returns what has changed about the backlog
/// while it waited, although nothing may change.
pub async fn disturbed(bench: &Bench<'_>, gathered: &Gathered) -> Result<Vec<String>> {
    let mut database = bench.system.database_of(Service::Orchestrator).await?;
    let began = Instant::now();
    loop {
        progress::update("  waiting until the whole backlog is known to be queued");
        let waiting = store::waiting(&mut database, gathered.span).await?;
        if waiting.queued == waiting.sagas || began.elapsed() > QUEUED_LIMIT {
            return Ok(changes(&waiting, gathered));
        }
        sleep(COUNT_PERIOD).await;
    }
}

fn changes(waiting: &Waiting, gathered: &Gathered) -> Vec<String> {
    let sagas = waiting.sagas.cast_unsigned();
    let Gathered {
        accepted, unknown, ..
    } = *gathered;
    let mut wrong = Vec::new();
    if !(accepted..=accepted + unknown).contains(&sagas) {
        wrong.push(format!("{accepted} were accepted, and {sagas} are live"));
    }
    let rules = [
        (waiting.running, "are running"),
        (waiting.on_payment, "wait for payment-svc"),
        (waiting.queued, "are known to be queued"),
        (waiting.first_attempt, "are at their first attempt"),
    ];
    let broken = rules.iter().filter(|(count, _)| *count != waiting.sagas);
    wrong.extend(broken.map(|(count, what)| format!("of {sagas} that wait, only {count} {what}")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_waits_must_not_change() {
        let gathered = Gathered {
            span: Span::new(0, 1),
            accepted: 10,
            unknown: 1,
        };
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
            let found = changes(&waiting, &gathered);
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
}
