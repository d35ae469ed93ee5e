//! Retry policies. The jitter is a function of the retried command, so the same retry has the same delay everywhere.

use serde::{Deserialize, Serialize};

/// Capped exponential backoff with deterministic jitter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Number of attempts, including the first.
    pub attempts: u32,
    pub first_delay_ms: u64,
    pub factor: f64,
    pub max_delay_ms: u64,
    /// Share of the delay that is random, from 0 to 1: the delay lies in `[d·(1−jitter), d]`.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay_ms: 500,
            factor: 2.0,
            max_delay_ms: 30_000,
            jitter: 0.2,
        }
    }
}

impl RetryPolicy {
    /// The default policy of compensations. They are tried longer than actions: giving up a compensation needs a
    /// person.
    pub const COMPENSATION: Self = Self {
        attempts: 10,
        first_delay_ms: 500,
        factor: 2.0,
        max_delay_ms: 30_000,
        jitter: 0.2,
    };

    /// Returns the milliseconds to wait after attempt `attempt` (from 1) went wrong. `seed` decides the jitter.
    pub fn delay_ms(&self, attempt: u32, seed: u64) -> u64 {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let uncapped = self.first_delay_ms as f64 * self.factor.powi(exponent);
        // `min` also caps the infinity that a large exponent yields.
        let delay = uncapped.min(self.max_delay_ms as f64);
        (delay * (1.0 - self.jitter * share(seed))).max(0.0) as u64
    }
}

/// Returns a number in `[0, 1)` that depends on every bit of the seed, by the finalizer of SplitMix64
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn share(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: RetryPolicy, delays: &[u64]) {
        for (attempt, expected) in (1..).zip(delays) {
            assert_eq!(
                policy.delay_ms(attempt, 7),
                *expected,
                "after attempt {attempt}"
            );
        }
    }

    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap() {
        let steady = RetryPolicy {
            jitter: 0.0,
            ..RetryPolicy::default()
        };
        check(
            steady,
            &[500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000],
        );
        assert_eq!(steady.delay_ms(u32::MAX, 7), 30_000);
        check(
            RetryPolicy {
                factor: 1.0,
                ..steady
            },
            &[500, 500, 500],
        );
    }

    #[test]
    fn jitter_shortens_a_delay_by_at_most_its_share_and_the_same_seed_by_the_same() {
        let policy = RetryPolicy::default();
        let delays: Vec<u64> = (0..1_000).map(|seed| policy.delay_ms(1, seed)).collect();
        assert!(delays.iter().all(|delay| (400..=500).contains(delay)));
        assert!(delays.iter().min() < Some(&410) && delays.iter().max() > Some(&490));
        assert_eq!(policy.delay_ms(3, 42), policy.delay_ms(3, 42));
    }
}
