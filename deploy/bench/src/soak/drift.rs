//! Figures of a soak, one for each minute, and the comparison of the last minutes with the first ones. Pure.
//!
//! ```text
//!  ├ settling ┼──── first third ────┼────────────────────┼──── last third ─────┤
//!   left out           median                                   median
//! ```
//!
//! Medians are compared, so that a single minute in which another process used the machine has no effect.

use crate::middle::Middle;

/// The groups of series: each has its own table.
pub const TIME: &str = "time";
pub const OF_ALL: &str = "of all";
pub const CPU: &str = "CPU";
pub const MEMORY: &str = "memory";
pub const DESCRIPTORS: &str = "descriptors";
pub const STORAGE: &str = "storage";

/// A figure of one minute; `None` if it is unknown.
#[derive(Clone, Debug)]
pub struct Figure {
    group: &'static str,
    name: String,
    value: Option<f64>,
}

impl Figure {
    pub fn new(
        group: &'static str,
        name: impl Into<String>,
        value: impl Into<Option<f64>>,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            value: value.into(),
        }
    }
}

/// A figure for each minute.
pub struct Series {
    pub group: &'static str,
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// Returns the medians of the first and of the last third. `None` if there are too few values besides those of the
/// settling.
pub fn of(values: &[Option<f64>], settling: usize) -> Option<(f64, f64)> {
    let settled = values.get(settling..)?;
    let third = settled.len() / 3;
    let first = settled.get(..third)?;
    let last = settled.get(settled.len() - third..)?;
    Some((median(first)?, median(last)?))
}

/// Returns the last value over the first; `None` if the first was zero.
pub fn ratio(first: f64, last: f64) -> Option<f64> {
    (first > 0.0).then(|| last / first)
}

fn median(values: &[Option<f64>]) -> Option<f64> {
    Middle::of(values.iter().copied().flatten()).map(|middle| middle.median)
}

/// Returns the series of all figures that the first minute has, in their order. The first series holds the times.
pub fn series(minutes: &[Vec<Figure>]) -> Vec<Series> {
    let first = minutes.first().into_iter().flatten();
    let of = |figure: &Figure| {
        let same = |other: &&Figure| other.name == figure.name;
        let value = |minute: &Vec<Figure>| minute.iter().find(same)?.value;
        Series {
            group: figure.group,
            name: figure.name.clone(),
            values: minutes.iter().map(value).collect(),
        }
    };
    first.map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[Option<f64>], expected: Option<(f64, f64)>) {
        assert_eq!(of(values, 0), expected, "{values:?}");
    }

    #[test]
    fn drift_compares_the_last_third_with_the_first() {
        let known = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        check(&known(&[1.0, 5.0, 2.0]), Some((1.0, 2.0)));
        check(
            &known(&[1.0, 2.0, 90.0, 7.0, 7.0, 7.0, 4.0, 80.0, 3.0]),
            Some((2.0, 4.0)),
        );
        // Samples that belong to neither third are in the middle.
        check(&known(&[1.0, 9.0, 9.0, 9.0, 2.0]), Some((1.0, 2.0)));
        check(&known(&[1.0, 3.0, 9.0, 9.0, 4.0, 6.0]), Some((2.0, 5.0)));
    }

    #[test]
    fn too_few_values_have_no_drift() {
        check(&[], None);
        check(&[Some(1.0), Some(2.0)], None);
        check(&[None, Some(1.0), Some(2.0)], None);
        check(&[Some(1.0), None, Some(2.0)], Some((1.0, 2.0)));
    }

    #[test]
    fn zero_has_no_ratio() {
        assert_eq!(ratio(0.0, 2.0), None);
        assert_eq!(ratio(4.0, 2.0), Some(0.5));
    }

    #[test]
    fn the_settling_is_left_out() {
        let values = [9.0, 9.0, 1.0, 5.0, 2.0].map(Some);
        assert_eq!(of(&values, 2), Some((1.0, 2.0)));
        assert_eq!(of(&values, 9), None);
    }
}
