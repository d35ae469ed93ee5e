//! The order in which a backlog drained, and its speed, from the times at which its sagas ended, listed in order of age.

use crate::load::count_second;

/// How far the backlog was from draining in order of age. Sagas that ended in the same millisecond count as in order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Order {
    /// |rank by age − rank by end|, as a share of all sagas. 0 is in order; a random order has a third on average.
    pub displaced_p99: f64,
    pub displaced_max: f64,
    /// How long a saga was still live after the first younger one had ended.
    pub overtaken_p99_ms: i64,
    pub overtaken_max_ms: i64,
}

const P99: f64 = 0.99;

impl Order {
    /// Computes the figures from the ends, which must be in order of age.
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

/// Returns the displacement of each saga, in ascending order.
fn displacements(ended_ms: &[i64]) -> Vec<i64> {
    let mut by_end: Vec<usize> = (0..ended_ms.len()).collect();
    // The sort is stable: sagas with the same end stay in order of age.
    by_end.sort_by_key(|age| ended_ms[*age]);
    let ranked = by_end.into_iter().enumerate();
    let mut all: Vec<i64> = ranked
        .map(|(rank, age)| rank.abs_diff(age) as i64)
        .collect();
    all.sort_unstable();
    all
}

/// Returns how long each saga was overtaken, in ascending order.
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

/// Returns a quantile of sorted values; 0 if there are none.
fn quantile(sorted: &[i64], quantile: f64) -> i64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * quantile).ceil() as usize;
    sorted.get(at).copied().unwrap_or(0)
}

/// Returns how many sagas ended in each second from `began_ms` on.
pub fn by_second(ended_ms: &[i64], began_ms: i64) -> Vec<u64> {
    let mut seconds = Vec::new();
    for ended in ended_ms {
        let second = ((ended - began_ms).max(0) / 1_000) as usize;
        count_second(&mut seconds, second);
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
    fn ends_in_order_of_age_and_simultaneous_ends_count_as_ordered() {
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
    fn seconds_without_an_end_are_listed() {
        let seconds = by_second(&[1_000, 1_999, 4_000, 500], 1_000);
        assert_eq!(seconds, [3, 0, 0, 1]);
    }
}
