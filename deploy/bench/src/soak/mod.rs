//! Measures whether any figure drifts in a long run, and how dropping old partitions affects the load.
//!
//! ```text
//!  saturation ─▶ a share of it, for minutes ─▶ check ─▶ aging of partitions ─▶ the same load during the drops ─▶ check
//!                  └ sampler: every minute      │                                └ locks: when each is dropped, who waits
//!                     └▶ drift                  └ services are stopped              └▶ stalls around each drop
//! ```
//!
//! No drop is forced: the services' own upkeep drops the partitions, with the default retention and at the default
//! times. Only the old rows are artificial, see [`aging`].

mod aging;
mod drift;
mod lock_sampler;
mod retention;
mod sampler;

use crate::{
    bench::Bench,
    options::{Shared, SoakOptions},
    report::{self, Axes, Cell, Chart, Line, Report, Row, heads, row},
    scenario::Scenario,
    session,
    stage::Plan,
    workload::{self, Workload},
};
use anyhow::{Result, ensure};
use drift::Series;
use sampler::Sampler;
use std::time::Duration;

/// The number of first samples that are left out of the drift, while caches fill and tables reach their size.
const SETTLING: usize = 2;
const MINUTE: Duration = Duration::from_mins(1);
const SMOKE_MEASURED: Duration = Duration::from_secs(12);
const SMOKE_INTERVAL: Duration = Duration::from_secs(2);

/// Runs the soak and returns its report.
pub async fn run(shared: &Shared, own: &SoakOptions) -> Result<Report> {
    session::within(shared, false, async |bench| {
        Box::pin(measure(shared, own, bench)).await
    })
    .await
}

async fn measure(shared: &Shared, own: &SoakOptions, bench: &mut Bench<'_>) -> Result<Report> {
    workload::settle(bench, shared).await?;
    let mut report = Report::new("soak", bench);
    let mut workload = Workload::new("", bench, Scenario::Confirm).await?;
    let in_flight = shared.orders_in_flight();
    let closed = Plan::closed(format!("{in_flight} in flight"), in_flight, shared);
    let saturation = workload.stage(bench, closed).await?.sagas_a_second;
    let rate = own.rate.map_or(own.share * saturation, |rate| rate as f64);
    ensure!(rate > 0.0, "no saga ended");
    let series = long(shared, own, bench, &mut workload, rate).await?;
    workload.check("soak", bench).await?;
    if shared.smoke {
        let found = bench.audit().await?;
        workload.broken("", found);
    }
    describe(&mut report, &series);
    if !own.without_retention {
        let plan = Plan::open("retention", rate, shared);
        Box::pin(retention::under_load(
            shared,
            own,
            bench,
            &mut workload,
            plan,
            &mut report,
        ))
        .await?;
        workload.check("retention", bench).await?;
    }
    report.add(workload);
    let (heads, costs) = report::costs(report.stages());
    report.table("Cost:", heads, costs);
    Ok(report)
}

/// Offers the load of the soak, and returns all figures of each minute.
async fn long(
    shared: &Shared,
    own: &SoakOptions,
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    rate: f64,
) -> Result<Vec<Series>> {
    let (measured, interval) = if shared.smoke {
        (SMOKE_MEASURED, SMOKE_INTERVAL)
    } else {
        (MINUTE * own.minutes as u32, MINUTE)
    };
    let plan = Plan {
        measured,
        ..Plan::open("soak", rate, shared)
    };
    let from = bench.flight.now_us() + plan.warm_up.as_micros() as u64;
    let until = from + plan.measured.as_micros() as u64;
    let sampler = Sampler::new(bench, interval).await?;
    bench.flight.keep_trace();
    let (_, readings) =
        Box::pin(async { tokio::try_join!(workload.stage(bench, plan), sampler.run(from, until)) })
            .await?;
    let trace = bench.flight.take_trace();
    Ok(drift::series(&sampler::samples(&readings, &trace)))
}

/// Adds the tables and charts of the figures by time. The first series holds the times.
fn describe(report: &mut Report, series: &[Series]) {
    let figures = [
        ("Figures by time:", drift::OF_ALL),
        ("CPU µs a saga by time:", drift::CPU),
        ("Memory in MiB at the end of each time:", drift::MEMORY),
        (
            "Open file descriptors at the end of each time:",
            drift::DESCRIPTORS,
        ),
        ("Tables of live rows, and all databases:", drift::STORAGE),
    ];
    for (text, group) in figures {
        let (names, rows) = by_time(series, group);
        report.table(text, names, rows);
    }
    let all = series.iter().skip(1);
    let drifts =
        all.filter_map(|series| drift::of(&series.values, SETTLING).map(|found| (series, found)));
    let row = |(series, (first, last)): (&Series, (f64, f64))| {
        let ratio = drift::ratio(first, last);
        row![series.name.as_str(), first, last, ratio]
    };
    let rows = drifts.map(row).collect();
    report.table(
        format!(
            "Drift: the median of the last third of the times over the median of the first third, without the first \
             {SETTLING}, which settle."
        ),
        heads("figure | first third | last third | ratio"),
        rows,
    );
    for (file, up, ending) in [
        ("soak-latency", "milliseconds", " ms"),
        ("soak-cpu", "CPU µs a saga", "CPU µs a saga"),
        ("soak-memory", "MiB", "memory MiB"),
    ] {
        report.chart(file, chart(series, up, ending));
    }
}

/// Returns a table with a row for each time, and a column for each series of a group.
fn by_time(series: &[Series], group: &str) -> (Vec<String>, Vec<Row>) {
    let chosen = || {
        let own = |series: &&Series| series.group == group || series.group == drift::TIME;
        series.iter().filter(own)
    };
    let names = chosen().map(|series| series.name.clone()).collect();
    let count = series.first().map_or(0, |times| times.values.len());
    let row = |at: usize| {
        chosen()
            .map(|series| Cell::from(series.values[at]))
            .collect()
    };
    (names, (0..count).map(row).collect())
}

/// Plots every series whose name has this ending.
fn chart(series: &[Series], up: &'static str, ending: &str) -> Chart {
    let times = || series.first().into_iter().flat_map(|times| &times.values);
    let line = |series: &Series| Line {
        name: series.name.clone(),
        points: times()
            .zip(&series.values)
            .filter_map(|(at, value)| Some(((*at)?, (*value)?)))
            .collect(),
    };
    let wanted = series.iter().filter(|series| series.name.ends_with(ending));
    Chart {
        title: format!("soak: {up}"),
        across: "seconds",
        up,
        axes: Axes::Linear,
        lines: wanted.map(line).collect(),
    }
}
