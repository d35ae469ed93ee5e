//! Durations: a histogram, and the percentiles that are reported from it.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest duration that is distinguished. A longer one is counted as this; the bench waits for nothing that long.
const LONGEST_US: u64 = 600_000_000;
/// Significant digits: a percentile is exact to a thousandth.
const DIGITS: u8 = 3;

/// A histogram of durations in microseconds.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("the bounds are valid"))
    }
}

impl Latency {
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count(),
            p50_ms: self.at(0.5),
            p90_ms: self.at(0.9),
            p99_ms: self.at(0.99),
            p99_9_ms: self.at(0.999),
            max_ms: (self.count() > 0).then(|| ms(self.0.max())),
        }
    }

    /// Returns the value at a quantile in milliseconds. Returns `None` if fewer than ten values lie above it, which are
    /// too few for a meaningful figure.
    pub fn at(&self, quantile: f64) -> Option<f64> {
        let above = self.count() as f64 * (1.0 - quantile);
        (above >= MIN_ABOVE).then(|| ms(self.0.value_at_quantile(quantile)))
    }

    /// Returns the quantiles through which a curve is drawn, each with its milliseconds.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        CURVE
            .iter()
            .filter_map(|quantile| Some((*quantile, self.at(*quantile)?)))
            .collect()
    }
}

/// A percentile is reported if at least this many values lie above it. The margin covers rounding: a tenth of a hundred
/// is ten.
const MIN_ABOVE: f64 = 10.0 - 1e-6;

/// Evenly spaced on an axis that has as much room from 90 % to 99 % as from 0 to 90 %.
const CURVE: [f64; 22] = [
    0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.993,
    0.995, 0.997, 0.998, 0.999, 0.9999,
];

fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// Percentiles in milliseconds. A percentile with too few measurements above it is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    #[serde(rename = "p99.9Ms")]
    pub p99_9_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::default();
        for us in values {
            latency.record(us);
        }
        latency
    }

    fn near(found: Option<f64>, expected_ms: f64) -> bool {
        found.is_some_and(|found| (found / expected_ms - 1.0).abs() < 0.002)
    }

    #[test]
    fn percentiles_match_the_recorded_values() {
        let all = of((1..=10_000).map(|n| n * 100)).percentiles();
        assert_eq!(all.count, 10_000);
        assert!(near(all.p50_ms, 500.0), "{all:?}");
        assert!(near(all.p90_ms, 900.0), "{all:?}");
        assert!(near(all.p99_ms, 990.0), "{all:?}");
        assert!(near(all.p99_9_ms, 999.0), "{all:?}");
        assert!(near(all.max_ms, 1_000.0), "{all:?}");
    }

    #[test]
    fn a_percentile_with_too_few_values_above_it_is_omitted() {
        let check = |count: u64, p90: bool, p99: bool, p99_9: bool| {
            let found = of(1..=count).percentiles();
            let told = [found.p90_ms, found.p99_ms, found.p99_9_ms].map(|p| p.is_some());
            assert_eq!(told, [p90, p99, p99_9], "{count}");
        };
        check(0, false, false, false);
        check(99, false, false, false);
        check(100, true, false, false);
        check(999, true, false, false);
        check(1_000, true, true, false);
        check(10_000, true, true, true);
    }

    #[test]
    fn an_empty_recording_has_no_percentiles_and_no_curve() {
        assert_eq!(Latency::default().percentiles(), Percentiles::default());
        assert!(Latency::default().curve().is_empty());
    }

    #[test]
    fn a_value_above_the_highest_bound_counts_as_the_longest() {
        let found = of([LONGEST_US * 3]).percentiles();
        assert_eq!(found.count, 1);
        assert!(near(found.max_ms, LONGEST_US as f64 / 1e3), "{found:?}");
    }

    #[test]
    fn a_curve_never_falls() {
        let curve = of((1..=100_000).rev()).curve();
        assert_eq!(curve.len(), CURVE.len());
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }
}
