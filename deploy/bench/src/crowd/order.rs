//! In which order a crowd drained, and how fast: by the times at which its sagas ended, in order of age.

use serde::Serialize;

/// How far the crowd was from draining in order of age. A saga that ended at the same millisecond as others counts as in
/// order among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// |rank by age − rank by end|, as a share of all: 0 is in order, and a third is what chance brings on average.
    pub displaced_p99: f64,
    pub displaced_max: f64,
    /// For how long a saga was still there after the first younger one had ended.
    pub overtaken_p99_ms: i64,
    pub overtaken_max_ms: i64,
}

const P99: f64 = 0.99;

impl Order {
    /// `ended_ms` is in order of age.
    pub fn of(ended_ms: &[i64]) -> Self {
        let (displaced, overtaken) = (displacements(ended_ms), overtakings(ended_ms));
        let count = ended_ms.len().max(1) as f64;
        Self {
            displaced_p99: quantile(&displaced, P99) as f64 / count,
            displaced_max: quantile(&displaced, 1.0) as f64 / count,
            overtaken_p99_ms: quantile(&overtaken, P99),
            overtaken_max_ms: quantile(&overtaken, 1.0),
        }
    }
}

/// In order of size.
fn displacements(ended_ms: &[i64]) -> Vec<i64> {
    let mut by_end: Vec<usize> = (0..ended_ms.len()).collect();
    // Stable: equals stay in order of age.
    by_end.sort_by_key(|age| ended_ms[*age]);
    let ranked = by_end.into_iter().enumerate();
    let mut all: Vec<i64> = ranked
        .map(|(rank, age)| rank.abs_diff(age) as i64)
        .collect();
    all.sort_unstable();
    all
}

/// In order of size.
fn overtakings(ended_ms: &[i64]) -> Vec<i64> {
    let mut younger_ended = i64::MAX;
    let mut all: Vec<i64> = Vec::with_capacity(ended_ms.len());
    for ended in ended_ms.iter().rev() {
        all.push(ended.saturating_sub(younger_ended).max(0));
        younger_ended = younger_ended.min(*ended);
    }
    all.sort_unstable();
    all
}

/// Of what is in order of size; 0 of nothing.
fn quantile(sorted: &[i64], quantile: f64) -> i64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * quantile).ceil() as usize;
    sorted.get(at).copied().unwrap_or(0)
}

/// How many ended in each second from `began_ms` on.
pub fn by_second(ended_ms: &[i64], began_ms: i64) -> Vec<u64> {
    let mut seconds = Vec::new();
    for ended in ended_ms {
        let second = ((ended - began_ms).max(0) / 1_000) as usize;
        if seconds.len() <= second {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += 1;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn who_ends_in_order_of_age_or_at_the_same_time_is_in_order() {
        assert_eq!(Order::of(&[1, 2, 3, 3, 3, 9]), Order::default());
        assert_eq!(Order::of(&[]), Order::default());
    }

    #[test]
    fn the_reverse_order_displaces_the_first_and_the_last_by_all_the_others() {
        let ended: Vec<i64> = (0..100).rev().collect();
        let order = Order::of(&ended);
        assert!(near(order.displaced_max, 0.99), "{order:?}");
        assert_eq!(order.overtaken_max_ms, 99);
    }

    #[test]
    fn one_that_is_left_behind_is_overtaken_by_all_that_are_younger() {
        let mut ended: Vec<i64> = (0..1_000).map(|n| n * 10).collect();
        ended[0] = 60_000;
        let order = Order::of(&ended);
        assert!(near(order.displaced_max, 0.999), "{order:?}");
        assert!(near(order.displaced_p99, 0.001), "{order:?}");
        assert_eq!(order.overtaken_max_ms, 59_990);
        assert_eq!(order.overtaken_p99_ms, 0);
    }

    #[test]
    fn seconds_in_which_nothing_ended_stand_there_too() {
        let seconds = by_second(&[1_000, 1_999, 4_000, 500], 1_000);
        assert_eq!(seconds, [3, 0, 0, 1]);
    }
}
