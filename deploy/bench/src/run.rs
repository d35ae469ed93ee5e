//! Measures the scenarios, one after the other, on a fresh system.

use crate::{
    baseline::{self, Baseline},
    bench::Bench,
    kafka,
    options::{RunOptions, Shared},
    progress::{say, update},
    report::{self, Report, heads, row},
    scenario::Scenario,
    session,
    stage::Plan,
    workload::{self, Workload},
};
use anyhow::{Result, bail};

/// Saturation is found when more orders in flight raise throughput by less than this factor, which is not worth their
/// latency.
const GAIN_MIN: f64 = 1.05;
const IDLE_PER_SECOND: f64 = 5.0;
/// The open-loop rates, as shares of saturation.
const SHARES: [(f64, &str); 2] = [(0.3, "30 %"), (0.7, "70 %")];
/// The rate of the overload stage, as a multiple of saturation: orders must be turned away, and everything else must go
/// on.
const OVERLOAD: f64 = 2.0;
/// A given rate above this share of saturation shows only a queue, and is left out.
const RATE_SHARE_MAX: f64 = 0.9;

/// The results of a scenario, beside its stages.
struct Found {
    scenario: Scenario,
    saturation_a_second: f64,
    baseline: Option<Baseline>,
}

/// Runs the scenarios that the options name, and returns the report.
pub async fn run(shared: &Shared, own: &RunOptions) -> Result<Report> {
    session::within(shared, shared.smoke, async |bench| {
        let mut report = Report::new("bench", bench);
        let mut a_second = workload::settle(bench, shared).await?;
        let mut all = Vec::new();
        for scenario in own.scenarios() {
            say(scenario.name());
            let mut workload = Workload::new(scenario.name(), bench, scenario).await?;
            let found = measure(shared, own, bench, &mut workload, a_second).await?;
            a_second = found.saturation_a_second;
            all.push(found);
            let name = scenario.name();
            let stages = &workload.stages;
            let latency = report::latency_chart(name, stages);
            report.chart(format!("{name}-latency"), latency);
            let throughput = report::throughput_chart(name, stages);
            report.chart(format!("{name}-throughput"), throughput);
            report.add(workload);
        }
        if shared.smoke {
            report.mistakes.extend(bench.audit().await?);
            report.mistakes.extend(bench.check_plans()?);
        }
        describe(&mut report, &all);
        Ok(report)
    })
    .await
}

async fn measure(
    shared: &Shared,
    own: &RunOptions,
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    a_second: f64,
) -> Result<Found> {
    let scenario = workload.shop.scenario();
    let ends = kafka::ends_of(&bench.system.brokers).await?;
    let saturation = saturation(shared, bench, workload, a_second).await?;
    if saturation <= 0.0 {
        bail!("{}: no saga ended", scenario.name());
    }
    for plan in open_loops(shared, own, scenario, saturation) {
        workload.stage(bench, plan).await?;
    }
    workload.check("", bench).await?;
    let baseline = if own.without_baseline || !baseline::is_measured(scenario) {
        None
    } else {
        update("  measuring the baseline");
        let sagas = workload.accepted.orders.values().sum();
        baseline::measure(bench.system, scenario, ends, sagas, shared.measured()).await?
    };
    Ok(Found {
        scenario,
        saturation_a_second: saturation,
        baseline,
    })
}

/// Measures closed loops with more and more orders in flight, until throughput no longer rises. Returns the best one.
async fn saturation(
    shared: &Shared,
    bench: &mut Bench<'_>,
    workload: &mut Workload,
    mut a_second: f64,
) -> Result<f64> {
    let mut best: f64 = 0.0;
    for in_flight in &shared.in_flight {
        let plan = Plan::closed(format!("{in_flight} in flight"), *in_flight, shared)
            .for_rounds(a_second, shared.round_max());
        let found = workload.stage(bench, plan).await?.sagas_a_second;
        let enough = found < best * GAIN_MIN;
        best = best.max(found);
        a_second = best;
        if enough {
            break;
        }
    }
    Ok(best)
}

fn open_loops(shared: &Shared, own: &RunOptions, scenario: Scenario, saturation: f64) -> Vec<Plan> {
    let rates = own.rates.iter().map(|rate| *rate as f64);
    let rates = rates.filter(|rate| *rate <= RATE_SHARE_MAX * saturation);
    let by_share = SHARES.map(|(share, name)| Plan::open(name, share * saturation, shared));
    let mut plans: Vec<Plan> = by_share.into_iter().collect();
    plans.extend(rates.map(|rate| Plan::open(format!("{rate}/s"), rate, shared)));
    if scenario == Scenario::Confirm {
        plans.push(Plan::open("overload", OVERLOAD * saturation, shared));
    }
    plans.push(Plan {
        measured: shared.idle(),
        ..Plan::open("idle", IDLE_PER_SECOND, shared)
    });
    plans
}

fn describe(report: &mut Report, all: &[Found]) {
    let best = |scenario: Scenario| {
        let stages = report.stages().iter();
        report::busiest(stages.filter(|stage| stage.workload == scenario.name()))
    };
    let first = all.first().map_or(0.0, |found| found.saturation_a_second);
    let row = |found: &Found| {
        let reached = found.saturation_a_second;
        let baseline = found.baseline.as_ref();
        row![
            found.scenario.name(),
            reached,
            100.0 * reached / first,
            best(found.scenario).and_then(|stage| stage.in_flight),
            baseline.map(|baseline| baseline.together),
            baseline.map(|baseline| baseline.sql),
            baseline.map(|baseline| baseline.log),
            baseline.map(|baseline| baseline.records_a_saga),
            baseline.map(|baseline| 100.0 * reached / baseline.together),
        ]
    };
    let rows = all.iter().map(row).collect();
    let (cost_heads, costs) = report::costs(all.iter().filter_map(|found| best(found.scenario)));
    let (memory_heads, memory) = report::memory(report.stages());
    report.table(
        "Saturation, and what the machine allows for the same sagas (Postgres and Kafka alone, by the minimum):",
        heads("scenario | sagas/s | of the first, % | in flight | baseline, sagas/s | Postgres alone | Kafka alone | records a saga | reached, %"),
        rows,
    );
    report.table("Cost at saturation:", cost_heads, costs);
    report.table("Memory:", memory_heads, memory);
}
