//! The participant is started again, and the backlog drains.

use super::{
    gather::Gathered,
    order::{Order, by_second},
    store,
};
use crate::{
    bench::Bench,
    kafka,
    load::Percentiles,
    measure::{Cost, Memory},
    middle::Middle,
    progress,
    report::{Cell, Report, heads, row},
    stage::{Plan, Stage},
    system::Instance,
    workload::Workload,
};
use anyhow::Result;
use saga_contracts::topic::PAYMENT_COMMANDS;
use saga_harness::system::Service;
use std::time::{Duration, Instant};

/// The backlog does not drain if no saga of it has ended for this long.
const STANDSTILL: Duration = Duration::from_mins(2);

/// The counts from before the backlog gathered.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Charges, according to the gateway.
    charges: i64,
    /// Records written to `payment.commands`.
    commands: i64,
}

impl Counted {
    pub async fn now(bench: &Bench<'_>) -> Result<Self> {
        let ends = kafka::ends_of(&bench.system.brokers).await?;
        Ok(Self {
            charges: store::charges(bench.system).await?,
            commands: ends.get(PAYMENT_COMMANDS).copied().unwrap_or(0),
        })
    }
}

/// Starts the participant, offers other sagas until the backlog has drained, and describes how it did. Returns the
/// mistakes.
pub async fn measure(
    bench: &mut Bench<'_>,
    others: &mut Workload,
    trickle: Plan,
    gathered: &Gathered,
    counted: Counted,
    report: &mut Report,
) -> Result<Vec<String>> {
    let mut database = bench.system.database_of(Service::Orchestrator).await?;
    let began_ms = store::now_ms(&mut database).await?;
    let completed = bench.watch.completed();
    let ready = bench.start([Instance::first(Service::Payment)]).await?;
    let before = bench.probe.snapshot().await?;
    let meanwhile = drain(bench, others, &trickle, gathered, completed).await?;
    let after = bench.probe.snapshot().await?;
    let ends = store::ends(&mut database, gathered.span).await?;
    let now = Counted::now(bench).await?;
    let charges = now.charges - counted.charges;
    let ended = ends.len() as u64;
    let last_ms = ends.iter().copied().max().unwrap_or(began_ms);
    let seconds = (last_ms - began_ms).max(1) as f64 / 1e3;
    let text = format!(
        "{} sagas have ended after {} s ({} a second), from the start of payment-svc, which took {} s",
        Cell::from(ended),
        Cell::from(seconds),
        Cell::Whole(ended as f64 / seconds),
        Cell::from(ready.as_secs_f64()),
    );
    progress::say(&format!("  {text}"));
    let (order, share) = (Order::of(&ends), |count: i64| {
        count as f64 / ended.max(1) as f64
    });
    let commands = now.commands - counted.commands;
    let repeated = store::repeated(&mut database, gathered.span).await?;
    let p50 = middle(&meanwhile, |one| one.p50_ms);
    let p99 = middle(&meanwhile, |one| one.p99_ms);
    let longest = middle(&meanwhile, |one| one.max_ms);
    let rows = vec![
        row!["out of order, p99 % of all", 100.0 * order.displaced_p99],
        row!["out of order, most %", 100.0 * order.displaced_max],
        row!["overtaken, p99 ms", order.overtaken_p99_ms],
        row!["overtaken, most ms", order.overtaken_max_ms],
        row!["commands to payment-svc a saga", share(commands)],
        row!["charges a saga", share(charges)],
        row!["sagas with a repeated command", repeated],
        row!["others turned away, %", turned_away(&meanwhile)],
        row!["others, median p50 ms", p50.map(|p50| p50.median)],
        row!["others, median p99 ms", p99.map(|p99| p99.median)],
        row!["others, longest ms", longest.map(|longest| longest.most)],
    ];
    report.table(format!("The return: {text}."), heads("drain | value"), rows);
    report.figure("endedBySecond", by_second(&ends, began_ms));
    let others_ended: u64 = meanwhile.iter().map(|stage| stage.cost.sagas).sum();
    let cost = Cost::between(&before, &after, &Memory::default(), ended + others_ended);
    report.figure("drain", serde_json::to_value(cost)?);
    Ok(mistakes(ended, charges, gathered))
}

/// Offers other sagas in one stage after the other, until the last saga of the backlog was seen to complete, or until
/// none has for [`STANDSTILL`].
async fn drain(
    bench: &mut Bench<'_>,
    others: &mut Workload,
    trickle: &Plan,
    gathered: &Gathered,
    completed_before: u64,
) -> Result<Vec<Stage>> {
    let mut meanwhile = Vec::new();
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let plan = Plan {
            warm_up: Duration::ZERO,
            ..trickle.clone()
        };
        meanwhile.push(others.stage(bench, plan).await?);
        let now = bench.watch.completed() - completed_before;
        progress::say(&format!("  {now} of {} have ended", gathered.accepted));
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
        if now >= gathered.accepted || moved.elapsed() > STANDSTILL {
            return Ok(meanwhile);
        }
    }
}

/// Returns the mistakes of draining. Commands that were sent again because a reply was late are not among them: their
/// number depends on how busy the machine was.
fn mistakes(ended: u64, charges: i64, gathered: &Gathered) -> Vec<String> {
    let accepted = gathered.accepted;
    let possible = accepted..=accepted + gathered.unknown;
    let mut wrong = Vec::new();
    if !possible.contains(&ended) {
        wrong.push(format!("{accepted} were accepted, and {ended} have ended"));
    }
    if !possible.contains(&charges.cast_unsigned()) {
        wrong.push(format!(
            "{accepted} were accepted, and the gateway charged {charges} times"
        ));
    }
    wrong
}

/// Returns the share of the others' orders that were turned away, in percent.
fn turned_away(stages: &[Stage]) -> f64 {
    let sum = |of: fn(&Stage) -> u64| stages.iter().map(of).sum::<u64>();
    100.0 * sum(|one| one.not_accepted.pushed_back) as f64 / sum(|one| one.sent).max(1) as f64
}

/// Returns the median and the range of a figure over the stages that have it.
fn middle(stages: &[Stage], pick: fn(&Percentiles) -> Option<f64>) -> Option<Middle> {
    let all = stages.iter().map(|stage| &stage.accepted_to_ended);
    Middle::of(all.filter_map(pick))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backlog::store::Span,
        load::{NotAccepted, Offer, Tally},
    };

    #[test]
    fn every_saga_of_a_backlog_ends_and_is_charged_once() {
        let gathered = Gathered {
            span: Span::new(0, 1),
            accepted: 10,
            unknown: 1,
        };
        let check = |ended: u64, charges: i64, wrong: usize| {
            let found = mistakes(ended, charges, &gathered);
            assert_eq!(found.len(), wrong, "{found:?}");
        };
        check(10, 10, 0);
        check(11, 11, 0);
        check(9, 10, 1);
        check(10, 12, 1);
        check(9, 20, 2);
    }

    fn stage(p50_ms: Option<f64>, max_ms: f64) -> Stage {
        let plan = Plan {
            name: String::new(),
            offer: Offer::InFlight(1),
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
        };
        let (tally, cost) = (Tally::default(), Cost::default());
        Stage {
            sent: 50,
            not_accepted: NotAccepted {
                pushed_back: 20,
                ..NotAccepted::default()
            },
            accepted_to_ended: Percentiles {
                p50_ms,
                max_ms: Some(max_ms),
                ..Percentiles::default()
            },
            ..Stage::new(plan, tally, cost, None)
        }
    }

    #[test]
    fn many_stages_are_described_by_the_median_and_the_longest_wait() {
        let stages = [
            stage(Some(9.0), 50.0),
            stage(None, 900.0),
            stage(Some(1.0), 2.0),
            stage(Some(5.0), 7.0),
        ];
        let median = middle(&stages, |one| one.p50_ms).map(|p50| p50.median);
        assert_eq!(median, Some(5.0));
        let longest = middle(&stages, |one| one.max_ms).map(|longest| longest.most);
        assert_eq!(longest, Some(900.0));
        assert!((turned_away(&stages) - 40.0).abs() < 1e-9);
        assert!(turned_away(&[]).abs() < 1e-9);
    }
}
