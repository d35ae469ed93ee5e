//! Whether a figure of the last minutes is another than that of the first ones. Pure.
//!
//! ```text
//!  ├ settling ┼──── first third ────┼────────────────────┼──── last third ─────┤
//!   left out           median                                   median
//! ```
//!
//! Medians, so that one minute in which somebody else used the machine decides nothing.

use super::sampler::Sample;
use crate::measure::LOAD_GENERATOR;
use serde::Serialize;
use std::collections::BTreeSet;

/// How one figure has changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    pub series: String,
    pub first: f64,
    pub last: f64,
    /// Last over first; nothing where the first was zero.
    pub ratio: Option<f64>,
}

/// A figure over the minutes; `None` where it could not be told.
pub struct Series {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// Of every figure. Empty if there are too few samples beside those of the settling.
pub fn of(samples: &[Sample], settling: usize) -> Vec<Drift> {
    let settled = samples.get(settling..).unwrap_or_default();
    let all = series(settled).into_iter();
    all.filter_map(|series| drift(series.name, &series.values))
        .collect()
}

fn drift(series: String, values: &[Option<f64>]) -> Option<Drift> {
    let third = values.len() / 3;
    if third == 0 {
        return None;
    }
    let (first, rest) = values.split_at(third);
    let last = rest.get(rest.len() - third..)?;
    let (first, last) = (median(first)?, median(last)?);
    Some(Drift {
        series,
        first,
        last,
        ratio: (first > 0.0).then(|| last / first),
    })
}

fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut known: Vec<f64> = values.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    let middle = known.len() / 2;
    let upper = *known.get(middle)?;
    if known.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *known.get(middle.checked_sub(1)?)?))
}

/// Everything that is looked at, in the order of the report.
pub fn series(samples: &[Sample]) -> Vec<Series> {
    let mut all = vec![
        figure(samples, "sagas/s", |sample| Some(sample.sagas_a_second)),
        figure(samples, "p50 ms", |sample| sample.latency.p50_ms),
        figure(samples, "p99 ms", |sample| sample.latency.p99_ms),
        figure(samples, "p99.9 ms", |sample| sample.latency.p99_9_ms),
        figure(samples, "longest stall, ms", |sample| {
            sample.longest_stall_ms
        }),
        figure(samples, "all but load, CPU µs a saga", |sample| {
            sample.cost.system_cpu_us_a_saga
        }),
        figure(samples, "WAL bytes a saga", |sample| {
            Some(sample.cost.wal_bytes_a_saga)
        }),
    ];
    for name in processes(samples) {
        all.push(figure(
            samples,
            format!("{name}, CPU µs a saga"),
            |sample| Some(sample.cost.processes.get(&name)?.cpu_us_a_saga),
        ));
    }
    for name in processes(samples) {
        all.push(figure(samples, format!("{name}, memory MiB"), |sample| {
            Some(sample.cost.processes.get(&name)?.resident_max_mib)
        }));
    }
    for name in processes(samples) {
        all.push(figure(samples, format!("{name}, descriptors"), |sample| {
            Some(*sample.descriptors.get(&name)? as f64)
        }));
    }
    all.extend(tables(samples));
    all.push(figure(samples, "databases MiB", |sample| {
        Some(sample.databases_mib)
    }));
    all
}

fn tables(samples: &[Sample]) -> Vec<Series> {
    let names: BTreeSet<&String> = samples.iter().flat_map(|one| one.tables.keys()).collect();
    let of = |name: &String| {
        let size = figure(samples, format!("{name}, MiB"), |sample| {
            Some(sample.tables.get(name)?.mib)
        });
        let dead = figure(samples, format!("{name}, dead rows"), |sample| {
            Some(sample.tables.get(name)?.dead_rows as f64)
        });
        [size, dead]
    };
    names.into_iter().flat_map(of).collect()
}

fn figure(
    samples: &[Sample],
    name: impl Into<String>,
    of: impl Fn(&Sample) -> Option<f64>,
) -> Series {
    Series {
        name: name.into(),
        values: samples.iter().map(of).collect(),
    }
}

/// Those of the system, by name. The load generator keeps every end, so it grows, and is left out.
pub fn processes(samples: &[Sample]) -> Vec<String> {
    let names = samples.iter().flat_map(|one| one.cost.processes.keys());
    let names: BTreeSet<&String> = names.filter(|name| *name != LOAD_GENERATOR).collect();
    names.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[Option<f64>], expected: Option<(f64, f64)>) {
        let found = drift("a figure".to_owned(), values);
        let found = found.map(|drift| (drift.first, drift.last));
        assert_eq!(found, expected, "{values:?}");
    }

    #[test]
    fn drift_compares_the_last_third_with_the_first() {
        let known = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        check(&known(&[1.0, 5.0, 2.0]), Some((1.0, 2.0)));
        check(
            &known(&[1.0, 2.0, 90.0, 7.0, 7.0, 7.0, 4.0, 80.0, 3.0]),
            Some((2.0, 4.0)),
        );
        // What is left over belongs to the middle.
        check(&known(&[1.0, 9.0, 9.0, 9.0, 2.0]), Some((1.0, 2.0)));
        check(&known(&[1.0, 3.0, 9.0, 9.0, 4.0, 6.0]), Some((2.0, 5.0)));
    }

    #[test]
    fn too_little_tells_nothing() {
        check(&[], None);
        check(&[Some(1.0), Some(2.0)], None);
        check(&[None, Some(1.0), Some(2.0)], None);
        check(&[Some(1.0), None, Some(2.0)], Some((1.0, 2.0)));
    }

    #[test]
    fn nothing_has_no_ratio() {
        let found = drift("dead rows".to_owned(), &[Some(0.0), Some(1.0), Some(2.0)]);
        assert_eq!(found.expect("three samples").ratio, None);
    }
}
