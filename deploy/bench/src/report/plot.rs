//! Plots: two a scenario, a line a stage.

use super::{
    ScenarioReport, StageReport,
    chart::{Chart, Line, Scale},
};
use anyhow::Result;
use std::ops::Range;

/// Milliseconds over the percentile, on axes that leave room for the tail.
pub(super) fn latency(scenario: &ScenarioReport) -> Result<String> {
    let lines: Vec<Line> = open_loops(scenario)
        .map(|stage| {
            let point =
                |(quantile, ms): &(f64, f64)| (nines(*quantile), ms.max(SHORTEST_MS).log10());
            Line {
                name: named(stage),
                points: stage.curve.iter().map(point).collect(),
            }
        })
        .collect();
    Chart {
        title: format!("{}: from accepted to ended", scenario.scenario.name()),
        across: Scale {
            name: "percentile",
            ticks: percentiles,
            label: percentile,
            from_zero: true,
        },
        up: Scale {
            name: "milliseconds",
            ticks: powers,
            label: milliseconds,
            from_zero: false,
        },
        lines,
    }
    .draw()
}

/// Sagas that ended, second by second.
pub(super) fn throughput(scenario: &ScenarioReport) -> Result<String> {
    let lines: Vec<Line> = scenario
        .stages
        .iter()
        .map(|stage| Line {
            name: named(stage),
            points: (0_u32..)
                .zip(&stage.timeline)
                .map(|(second, found)| (f64::from(second), found.ended as f64))
                .collect(),
        })
        .collect();
    Chart {
        title: format!("{}: sagas that ended, a second", scenario.scenario.name()),
        across: Scale {
            name: "seconds from the stage's beginning, warm-up included",
            ticks: even,
            label: plain,
            from_zero: true,
        },
        up: Scale {
            name: "sagas a second",
            ticks: even,
            label: plain,
            from_zero: true,
        },
        lines,
    }
    .draw()
}

fn open_loops(scenario: &ScenarioReport) -> impl Iterator<Item = &StageReport> {
    let stages = scenario.stages.iter();
    stages.filter(|stage| stage.offered_a_second.is_some())
}

fn named(stage: &StageReport) -> String {
    match stage.offered_a_second {
        Some(rate) => format!("{} ({rate:.0}/s)", stage.name),
        None => stage.name.clone(),
    }
}

/// What a logarithm can still be taken of.
const SHORTEST_MS: f64 = 0.01;

/// 0.9 is 1, 0.99 is 2, 0.999 is 3.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    if percent < 99.0 {
        format!("{percent:.0}")
    } else {
        format!("{percent:.2}")
    }
}

fn milliseconds(power: f64) -> String {
    let ms = 10_f64.powf(power);
    if ms < 10.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// Without what a multiplication left behind.
pub fn plain(value: f64) -> String {
    const ENOUGH: f64 = 1e6;
    format!("{}", (value * ENOUGH).round() / ENOUGH)
}

/// About six, at 1, 2 or 5 times a power of ten.
pub fn even(range: &Range<f64>) -> Vec<f64> {
    const WANTED: f64 = 6.0;
    let rough = (range.end - range.start).max(f64::MIN_POSITIVE) / WANTED;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power);
    let step = step
        .filter(|step| *step >= rough)
        .fold(f64::INFINITY, f64::min);
    let (first, last) = (
        (range.start / step).ceil() as i64,
        (range.end / step).floor() as i64,
    );
    (first..=last).map(|number| number as f64 * step).collect()
}

/// Milliseconds at 1, 2 or 5 times a power of ten, as powers of ten.
fn powers(range: &Range<f64>) -> Vec<f64> {
    let decades = range.start.floor() as i32..=range.end.ceil() as i32;
    decades
        .flat_map(|decade| [1_f64, 2.0, 5.0].map(|times| f64::from(decade) + times.log10()))
        .filter(|power| range.contains(power))
        .collect()
}

fn percentiles(range: &Range<f64>) -> Vec<f64> {
    const WELL_KNOWN: [f64; 9] = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999];
    let all = WELL_KNOWN.into_iter().map(nines);
    all.filter(|nines| range.contains(nines)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_labeled_with_what_was_measured() {
        let check =
            |quantile: f64, expected: &str| assert_eq!(percentile(nines(quantile)), expected);
        check(0.5, "50");
        check(0.9, "90");
        check(0.99, "99.00");
        check(0.999, "99.90");
        assert_eq!(milliseconds(250_f64.log10()), "250");
        assert_eq!(milliseconds(7.6_f64.log10()), "7.6");
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(
            even(&(0.0..1_050.0)),
            [0.0, 200.0, 400.0, 600.0, 800.0, 1_000.0]
        );
        assert_eq!(even(&(0.0..2.1)), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(plain(3.0 * 0.1), "0.3");
        let ms: Vec<String> = powers(&(0.6..2.4)).into_iter().map(milliseconds).collect();
        assert_eq!(ms, ["5.0", "10", "20", "50", "100", "200"]);
        let percent: Vec<String> = percentiles(&(0.0..3.1))
            .into_iter()
            .map(percentile)
            .collect();
        assert_eq!(
            percent,
            ["0", "50", "75", "90", "95", "99.00", "99.50", "99.90"]
        );
    }
}
