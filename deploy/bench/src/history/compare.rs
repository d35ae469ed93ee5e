//! Compares the figures of two systems over all rounds. Pure.

use crate::{
    middle::Middle,
    report::{Cell, Row, row},
    stage::Stage,
};

/// The relative difference up to which two speeds are called the same.
const TOLERANCE: f64 = 0.1;

/// One of the two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Empty,
    Loaded,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Empty, Self::Loaded];

    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Loaded => "loaded",
        }
    }
}

/// Returns half of the range of the rounds over their median, in percent.
fn spread(middle: Middle) -> f64 {
    50.0 * (middle.most - middle.least) / middle.median
}

/// Returns the comparison of one figure: both systems' medians, and the loaded system's over the empty one's. A figure
/// from too few sagas is left out.
pub fn compare(name: &str, stages: &[Stage], pick: fn(&Stage) -> Option<f64>) -> Row {
    let middle = |side: Side| {
        let of_side = stages.iter().filter(|stage| stage.workload == side.name());
        Middle::of(of_side.filter_map(pick))
    };
    between(name, middle(Side::Empty), middle(Side::Loaded))
}

fn between(name: &str, empty: Option<Middle>, loaded: Option<Middle>) -> Row {
    let ratio = empty
        .zip(loaded)
        .map(|(empty, loaded)| loaded.median / empty.median);
    let mut row = row![name];
    for middle in [empty, loaded] {
        row.push(Cell::from(middle.map(|middle| middle.median)));
        row.push(Cell::from(middle.map(spread)));
    }
    row.push(Cell::from(ratio.map(|ratio| format!("{ratio:.3}"))));
    row.push(Cell::from(ratio.map(is_same)));
    row
}

fn is_same(ratio: f64) -> &'static str {
    if (ratio - 1.0).abs() <= TOLERANCE {
        "yes"
    } else {
        "no"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(empty: Option<f64>, loaded: Option<f64>) -> Vec<String> {
        let middle = |value: Option<f64>| Middle::of(value);
        let row = between("a figure", middle(empty), middle(loaded));
        row.iter().skip(5).map(ToString::to_string).collect()
    }

    #[test]
    fn speeds_that_differ_by_a_tenth_at_most_are_the_same() {
        let check = |empty, loaded, expected: [&str; 2]| {
            assert_eq!(compared(Some(empty), Some(loaded)), expected);
        };
        check(100.0, 100.0, ["1.000", "yes"]);
        check(100.0, 91.0, ["0.910", "yes"]);
        check(100.0, 109.0, ["1.090", "yes"]);
        check(100.0, 89.0, ["0.890", "no"]);
        check(1_000.0, 1_200.0, ["1.200", "no"]);
    }

    #[test]
    fn a_figure_that_is_missing_on_one_side_is_not_compared() {
        assert_eq!(compared(Some(1.0), None), ["–", "–"]);
        assert_eq!(compared(None, None), ["–", "–"]);
    }
}
