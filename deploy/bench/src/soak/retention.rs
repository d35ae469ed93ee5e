//! Load while old partitions are dropped: how long no saga ended around each drop, and at any other time.

use super::{
    aging::{self, Aged, Aging},
    lock_sampler::{Gone, LockSampler, Seen, Wait},
};
use crate::{
    bench::Bench,
    load::{Stall, Trace},
    middle::Middle,
    options::{Shared, SoakOptions},
    progress::{say, update},
    report::{Cell, Report, heads, row},
    stage::Plan,
    system::Instance,
    workload::Workload,
};
use anyhow::Result;
use saga_harness::system::Service;
use saga_service::clock;
use std::{ops::Range, sync::Arc, time::Duration};

/// The time that counts as around a drop. It begins early enough to include earlier attempts that were given up because
/// a session used the table.
const BEFORE_US: u64 = 4_000_000;
const AFTER_US: u64 = 1_000_000;
/// The longest stall that a drop may cause.
const STALL_LIMIT_MS: f64 = 100.0;

/// The time until retention reaches the first partition, beside the time that aging takes: for a restart, and for a
/// quiet time under load.
const LEAD: Duration = Duration::from_mins(1);
/// The least number of rows a second that are created, in all databases together. It determines how far ahead a
/// partition's end is put, so that retention reaches it only under load.
const ROWS_A_SECOND: u64 = 20_000;
/// How long the load lasts after the last partition is old enough. Upkeep runs twice a minute: first the orchestrator's,
/// then that of the services that learn the new floor from commands. A session that uses a table may delay its drop by a
/// round.
const TAIL: Duration = Duration::from_secs(105);
const TAIL_SMOKE: Duration = Duration::from_mins(1);

/// The figures of the load in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Around {
    /// The longest time in which no saga ended although some were in flight.
    stall_ms: f64,
    /// The longest duration of the sagas that ended in this time.
    latency_ms: f64,
}

/// Returns the partitions that are to be created, and how long the load lasts after the last one is old enough.
fn plan(shared: &Shared, own: &SoakOptions) -> (Aging, Duration) {
    let (partitions, rows) = (own.aged_partitions, own.aged_rows);
    let all = aging::TABLES.len() as u64 * u64::from(partitions) * u64::from(rows);
    let lead = LEAD + Duration::from_secs(all / ROWS_A_SECOND);
    let aging = |lead_ms, spacing| Aging {
        partitions,
        rows,
        lead_ms,
        spacing,
    };
    if shared.smoke {
        // They are old enough at once, so that the smoke test does not wait for it.
        let lead_ms = -i64::from(partitions) * 1_000;
        return (aging(lead_ms, Duration::from_secs(1)), TAIL_SMOKE);
    }
    (aging(lead.as_millis() as i64, Duration::from_mins(1)), TAIL)
}

/// Ages partitions, restarts the services, and measures the load while the partitions are dropped.
pub async fn under_load(
    shared: &Shared,
    own: &SoakOptions,
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    load: Plan,
    report: &mut Report,
) -> Result<()> {
    update("  aging partitions");
    bench.system.stop_services()?;
    let (aging, tail) = plan(shared, own);
    let aged = Box::pin(aging::age(bench.system, aging)).await?;
    let rows: i64 = aged.iter().map(|one| one.rows).sum();
    say(&format!("  {} old partitions with {rows} rows", aged.len()));
    bench.start(Service::ALL.map(Instance::first)).await?;
    let last_due_ms = aged.iter().map(|one| one.due_ms).max().unwrap_or_default();
    let until_due_ms = last_due_ms - clock::now().timestamp_millis();
    let load = Plan {
        measured: measured(until_due_ms, load.warm_up, tail),
        ..load
    };
    let flight = Arc::clone(&bench.flight);
    let began = Began {
        us: flight.now_us(),
        ms: clock::now().timestamp_millis(),
    };
    let until_us = began.us + (load.warm_up + load.measured).as_micros() as u64;
    let measured_us = began.us + load.warm_up.as_micros() as u64..until_us;
    let locks = LockSampler::new(bench.system, Arc::clone(&flight), &aged).await?;
    flight.keep_trace();
    let (_, seen) =
        Box::pin(async { tokio::try_join!(workload.stage(bench, load), locks.run(until_us)) })
            .await?;
    let trace = flight.take_trace();
    let left = aged.iter().filter(|one| gone(one, &seen).is_none());
    let left = left.map(|one| format!("{}.{} was not dropped", one.database, one.partition));
    workload.broken("retention", left.collect());
    describe(report, &aged, &seen, &trace, began, &measured_us);
    describe_waits(report, &seen.waits, began);
    Ok(())
}

/// Returns how long to measure: until every partition is old enough, and `tail` longer.
fn measured(until_due_ms: i64, warm_up: Duration, tail: Duration) -> Duration {
    let until_due = Duration::from_millis(u64::try_from(until_due_ms).unwrap_or(0));
    until_due.saturating_sub(warm_up) + tail
}

/// One moment by the flight's clock and by the wall clock.
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

fn gone<'a>(aged: &Aged, seen: &'a Seen) -> Option<&'a Gone> {
    let mut all = seen.gone.iter();
    all.find(|gone| gone.database == aged.database && gone.partition == aged.partition)
}

/// Describes the load around each drop, and in all times of the same length in which nothing was dropped.
fn describe(
    report: &mut Report,
    aged: &[Aged],
    seen: &Seen,
    trace: &Trace,
    began: Began,
    measured_us: &Range<u64>,
) {
    let stalls = trace.stalls();
    let dropped = aged.iter().filter_map(|one| Some((one, gone(one, seen)?)));
    let mut dropped: Vec<(&Aged, &Gone)> = dropped.collect();
    dropped.sort_by_key(|(_, gone)| gone.missed_us);
    let (mut rows, mut above_limit) = (Vec::new(), 0);
    for (one, gone) in &dropped {
        let found = around(trace, &stalls, &window(gone));
        // Figures around a drop before or after the load mean nothing.
        let loaded = measured_us.contains(&gone.stood_us) && measured_us.contains(&gone.missed_us);
        let without = if loaded { "" } else { ", without load" };
        above_limit += usize::from(loaded && found.stall_ms > STALL_LIMIT_MS);
        let at_seconds = began.seconds(gone.missed_us);
        rows.push(row![
            format!("{} {}{without}", one.service, one.partition),
            one.rows,
            one.mib,
            at_seconds,
            at_seconds - (one.due_ms - began.ms) as f64 / 1e3,
            found.stall_ms,
            found.latency_ms,
        ]);
    }
    let busy: Vec<Range<u64>> = seen.gone.iter().map(window).collect();
    let quiet: Vec<Around> = times_between(measured_us, &busy)
        .map(|time| around(trace, &stalls, &time))
        .collect();
    let stalls = Middle::of(quiet.iter().map(|one| one.stall_ms));
    let latencies = Middle::of(quiet.iter().map(|one| one.latency_ms));
    let of_middle = |name: &str, pick: fn(Middle) -> f64| {
        let mut row = row![format!("no drop, {name} of {} times", quiet.len())];
        row.resize(5, Cell::Missing);
        row.extend(row![stalls.map(pick), latencies.map(pick)]);
        row
    };
    rows.push(of_middle("median", |middle| middle.median));
    rows.push(of_middle("worst", |middle| middle.most));
    let quiet_above = quiet.iter().filter(|one| one.stall_ms > STALL_LIMIT_MS);
    let text = format!(
        "Retention under the same load. Around each drop, from 4 s before it was seen until 1 s after: the longest time in \
         which no saga ended although some were on their way, and the longest that a saga took. Stalls above \
         {STALL_LIMIT_MS:.0} ms: {above_limit} of {} drops, {} of {} times without one.",
        dropped.len(),
        quiet_above.count(),
        quiet.len(),
    );
    let names = heads("partition | rows | MiB | at, s | late, s | stall ms | longest saga, ms");
    report.table(text, names, rows);
}

/// Describes all waits for a lock on a table, by any session.
fn describe_waits(report: &mut Report, waits: &[Wait], began: Began) {
    let wait = |wait: &Wait| {
        let behind: Vec<&str> = wait.behind.iter().map(String::as_str).collect();
        row![
            wait.database.as_str(),
            began.seconds(wait.from_us),
            (wait.to_us - wait.from_us) as f64 / 1e3,
            wait.waiters as u64,
            // Line breaks and bars of a statement would end the row or cell.
            behind.join("; ").replace(['\n', '|'], " "),
        ]
    };
    report.table(
        "Sessions that waited for a table's lock, exact to the time between two looks, 25 ms or more:",
        heads("database | at, s | ms | waiting | the drop waited for"),
        waits.iter().map(wait).collect(),
    );
}

fn window(gone: &Gone) -> Range<u64> {
    gone.stood_us.saturating_sub(BEFORE_US)..gone.missed_us + AFTER_US
}

/// Returns successive times as long as the time that is measured around a drop, without those that overlap a drop's.
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

/// Returns the figures of a time. A stall counts if any part of it lies within.
fn around(trace: &Trace, stalls: &[Stall], time: &Range<u64>) -> Around {
    // Stalls are in order and do not overlap.
    let first = stalls.partition_point(|stall| stall.to_us < time.start);
    let here = stalls.iter().skip(first);
    let here = here.take_while(|stall| stall.from_us < time.end);
    let ms = |us: Option<u64>| us.unwrap_or(0) as f64 / 1e3;
    Around {
        stall_ms: ms(here.map(Stall::us).max()),
        latency_ms: ms(trace.longest_us(time)),
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
