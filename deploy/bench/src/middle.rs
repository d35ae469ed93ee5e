//! The median of some values, with the least and the largest one. Pure.

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Middle {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Middle {
    /// Returns `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        Some(Self {
            median: f64::midpoint(lower, upper),
            least,
            most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        let check = |values: &[f64], expected: (f64, f64, f64)| {
            let found = Middle::of(values.to_vec()).expect("a middle");
            let (median, least, most) = expected;
            let expected = Middle {
                median,
                least,
                most,
            };
            assert_eq!(found, expected, "{values:?}");
        };
        check(&[7.0], (7.0, 7.0, 7.0));
        check(&[3.0, 1.0, 2.0], (2.0, 1.0, 3.0));
        check(&[4.0, 1.0, 2.0, 10.0], (3.0, 1.0, 10.0));
        assert_eq!(Middle::of(Vec::new()), None);
    }
}
