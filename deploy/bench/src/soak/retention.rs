//! Load while old partitions are dropped: how long no saga ended around each drop, and at any other time.

use super::{
    Soak,
    aging::{self, Aged},
    vigil::{Gone, Seen, Vigil, Wait},
};
use crate::{
    load::{Stall, Trace},
    progress::{say, update},
    report::StageReport,
    stage::{Offer, Plan},
};
use anyhow::Result;
use saga_service::clock;
use serde::Serialize;
use std::{ops::Range, sync::Arc, time::Duration};

/// Around a drop: what was tried before and given up, since somebody used the table, counts too.
const BEFORE_US: u64 = 4_000_000;
const AFTER_US: u64 = 1_000_000;
/// What a drop must not exceed.
const STALL_LIMIT_MS: f64 = 100.0;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionReport {
    pub stage: StageReport,
    pub drops: Vec<Dropped>,
    /// The same figures of all times of the same length in which nothing was dropped.
    pub quiet: Quiet,
    /// Of a lock on a table, by anybody.
    pub waits: Vec<Told>,
    /// Partitions that still stood at the end.
    pub left: Vec<String>,
}

/// A partition that went.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    #[serde(flatten)]
    pub aged: Aged,
    /// From the beginning of the load.
    pub at_seconds: f64,
    /// After it had become old enough.
    pub late_seconds: f64,
    /// Between the warm-up and the end of the load; else what was seen around it says nothing.
    pub under_load: bool,
    pub around: Around,
}

/// What the load saw in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Around {
    /// The longest time in which no saga ended although some were on their way.
    pub stall_ms: f64,
    /// The longest that a saga took which ended in it.
    pub latency_ms: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quiet {
    pub times: usize,
    pub times_above_limit: usize,
    pub median: Around,
    pub most: Around,
}

/// A wait for a table's lock.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    pub at_seconds: f64,
    pub ms: f64,
    #[serde(flatten)]
    pub wait: Wait,
}

impl RetentionReport {
    /// Drops around which the load stood still for longer than it may.
    pub fn above_limit(&self) -> usize {
        let drops = self.drops.iter().filter(|drop| drop.under_load);
        let stalls = drops.map(|drop| drop.around.stall_ms);
        stalls.filter(|ms| *ms > STALL_LIMIT_MS).count()
    }
}

/// The services are started anew on a database with a past.
pub async fn under_load(soak: &mut Soak<'_, '_>, per_second: f64) -> Result<RetentionReport> {
    update("  aging partitions");
    soak.bench.system.stop_services()?;
    let aged = Box::pin(aging::age(soak.bench.system, soak.pace.aging)).await?;
    let rows: i64 = aged.iter().map(|one| one.rows).sum();
    say(&format!("  {} old partitions with {rows} rows", aged.len()));
    soak.bench.system.start_services().await?;
    soak.bench.probe = soak.bench.system.probe().await?;
    let last_due_ms = aged.iter().map(|one| one.due_ms).max().unwrap_or_default();
    let plan = Plan {
        name: "retention".to_owned(),
        offer: Offer::Rate { per_second },
        warm_up: soak.pace.warm_up,
        measured: measured(
            last_due_ms - clock::now().timestamp_millis(),
            soak.pace.warm_up,
            soak.pace.tail,
        ),
    };
    let flight = Arc::clone(&soak.bench.flight);
    let began = Began {
        us: flight.now_us(),
        ms: clock::now().timestamp_millis(),
    };
    let until_us = began.us + (plan.warm_up + plan.measured).as_micros() as u64;
    let measured_us = began.us + plan.warm_up.as_micros() as u64..until_us;
    let vigil = Vigil::new(soak.bench.system, Arc::clone(&flight), &aged).await?;
    flight.keep_trace();
    let (stage, seen) =
        Box::pin(async { tokio::try_join!(soak.stage(plan), vigil.run(until_us)) }).await?;
    let trace = flight.take_trace();
    let report = evaluate(
        &aged,
        &seen,
        &trace,
        began,
        &measured_us,
        StageReport::new(&stage),
    );
    let left = report.left.iter();
    soak.mistakes
        .extend(left.map(|name| format!("retention: {name} was not dropped")));
    Ok(report)
}

/// Until everything is old enough, and a while longer.
fn measured(until_due_ms: i64, warm_up: Duration, tail: Duration) -> Duration {
    let until_due = Duration::from_millis(u64::try_from(until_due_ms).unwrap_or(0));
    until_due.saturating_sub(warm_up) + tail
}

/// One moment by the flight's clock and by everybody's.
#[derive(Clone, Copy, Debug)]
struct Began {
    us: u64,
    ms: i64,
}

impl Began {
    fn seconds(self, at_us: u64) -> f64 {
        at_us.saturating_sub(self.us) as f64 / 1e6
    }
}

fn evaluate(
    aged: &[Aged],
    seen: &Seen,
    trace: &Trace,
    began: Began,
    measured_us: &Range<u64>,
    stage: StageReport,
) -> RetentionReport {
    let stalls = trace.stalls();
    let gone_of = |one: &Aged| {
        let mut gone = seen.gone.iter();
        gone.find(|gone| gone.database == one.database && gone.partition == one.partition)
    };
    let mut drops: Vec<Dropped> = aged
        .iter()
        .filter_map(|one| {
            let gone = gone_of(one)?;
            let at_seconds = began.seconds(gone.missed_us);
            Some(Dropped {
                aged: one.clone(),
                at_seconds,
                late_seconds: at_seconds - (one.due_ms - began.ms) as f64 / 1e3,
                under_load: measured_us.contains(&gone.stood_us)
                    && measured_us.contains(&gone.missed_us),
                around: around(trace, &stalls, &window(gone)),
            })
        })
        .collect();
    drops.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
    let busy: Vec<Range<u64>> = seen.gone.iter().map(window).collect();
    let quiet: Vec<Around> = times_between(measured_us, &busy)
        .map(|time| around(trace, &stalls, &time))
        .collect();
    let left = aged.iter().filter(|one| gone_of(one).is_none());
    let told = seen.waits.iter().map(|wait| Told {
        at_seconds: began.seconds(wait.from_us),
        ms: (wait.to_us - wait.from_us) as f64 / 1e3,
        wait: wait.clone(),
    });
    RetentionReport {
        stage,
        drops,
        quiet: summary(&quiet),
        waits: told.collect(),
        left: left
            .map(|one| format!("{}.{}", one.database, one.partition))
            .collect(),
    }
}

fn window(gone: &Gone) -> Range<u64> {
    gone.stood_us.saturating_sub(BEFORE_US)..gone.missed_us + AFTER_US
}

/// One after the other, as long as what is looked at around a drop, without those that touch one.
fn times_between<'a>(
    all: &Range<u64>,
    busy: &'a [Range<u64>],
) -> impl Iterator<Item = Range<u64>> + 'a {
    let length = BEFORE_US + AFTER_US;
    let (start, count) = (all.start, all.end.saturating_sub(all.start) / length);
    (0..count)
        .map(move |number| start + number * length..start + (number + 1) * length)
        .filter(|time| {
            let touches = |busy: &Range<u64>| busy.start < time.end && time.start < busy.end;
            !busy.iter().any(touches)
        })
}

/// A stall counts if any of it lies within.
fn around(trace: &Trace, stalls: &[Stall], time: &Range<u64>) -> Around {
    // They follow one another without overlapping.
    let first = stalls.partition_point(|stall| stall.to_us < time.start);
    let here = stalls.iter().skip(first);
    let here = here.take_while(|stall| stall.from_us < time.end);
    let ms = |us: Option<u64>| us.unwrap_or(0) as f64 / 1e3;
    Around {
        stall_ms: ms(here.map(Stall::us).max()),
        latency_ms: ms(trace.longest_us(time)),
    }
}

fn summary(times: &[Around]) -> Quiet {
    let sorted = |of: fn(&Around) -> f64| {
        let mut all: Vec<f64> = times.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let (stalls, latencies) = (sorted(|one| one.stall_ms), sorted(|one| one.latency_ms));
    let at = |pick: fn(&[f64]) -> Option<f64>| Around {
        stall_ms: pick(&stalls).unwrap_or(0.0),
        latency_ms: pick(&latencies).unwrap_or(0.0),
    };
    Quiet {
        times: times.len(),
        times_above_limit: stalls.iter().filter(|ms| **ms > STALL_LIMIT_MS).count(),
        median: at(|all| all.get(all.len() / 2).copied()),
        most: at(|all| all.last().copied()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_time_touches_no_drop() {
        let length = BEFORE_US + AFTER_US;
        let all = 0..4 * length + 1;
        let drop = length + 5..length + 6;
        let found: Vec<Range<u64>> = times_between(&all, std::slice::from_ref(&drop)).collect();
        let time = |number: u64| number * length..(number + 1) * length;
        assert_eq!(found, [time(0), time(2), time(3)]);
    }

    #[test]
    fn a_stall_counts_for_every_time_that_it_reaches_into() {
        let stall = |from_us, to_us| Stall { from_us, to_us };
        let stalls = [stall(0, 1_000), stall(1_000, 9_000), stall(9_500, 9_600)];
        let check = |time: Range<u64>, expected: f64| {
            let found = around(&Trace::default(), &stalls, &time).stall_ms;
            assert!((found - expected).abs() < 1e-9, "{time:?}: {found}");
        };
        check(0..500, 1.0);
        check(8_000..9_200, 8.0);
        check(9_100..20_000, 0.1);
        check(20_000..30_000, 0.0);
    }

    #[test]
    fn quiet_times_are_told_by_their_median_and_their_worst() {
        let one = |stall_ms| Around {
            stall_ms,
            latency_ms: stall_ms * 2.0,
        };
        let found = summary(&[one(5.0), one(200.0), one(7.0)]);
        assert_eq!((found.times, found.times_above_limit), (3, 1));
        assert_eq!((found.median, found.most), (one(7.0), one(200.0)));
        assert_eq!(summary(&[]), Quiet::default());
    }

    #[test]
    fn the_load_lasts_until_everything_is_old_enough_and_longer() {
        let seconds = Duration::from_secs;
        let check = |due_ms: i64, expected: u64| {
            assert_eq!(
                measured(due_ms, seconds(10), seconds(60)),
                seconds(expected)
            );
        };
        check(100_000, 150);
        check(4_000, 60);
        check(-9_000, 60);
    }
}
