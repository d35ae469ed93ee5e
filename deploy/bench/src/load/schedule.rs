//! The times at which orders arrive in an open loop, however slow the system is.

use saga_harness::random::Random;

/// Arrivals of independent customers: a Poisson process, in microseconds after its beginning.
#[derive(Clone, Debug)]
pub struct Schedule {
    random: Random,
    mean_gap_us: f64,
    at_us: f64,
}

/// The number of different values of a random number from 0 to 1: as many as a float represents exactly.
const STEPS: u64 = 1 << 53;

impl Schedule {
    pub fn poisson(per_second: f64, seed: u64) -> Self {
        Self {
            random: Random::new(seed, "arrivals"),
            mean_gap_us: 1e6 / per_second,
            at_us: 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        // The number is above 0 and at most 1, so its logarithm is finite.
        let uniform = (self.random.below(STEPS) + 1) as f64 / STEPS as f64;
        self.at_us -= self.mean_gap_us * uniform.ln();
        Some(self.at_us as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 1_000.0;

    fn arrivals(seed: u64) -> Vec<u64> {
        Schedule::poisson(RATE, seed).take(50_000).collect()
    }

    #[test]
    fn arrivals_are_sorted() {
        assert!(arrivals(7).is_sorted());
    }

    #[test]
    fn the_rate_is_met_in_the_long_run() {
        let all = arrivals(7);
        let seconds = *all.last().expect("arrivals") as f64 / 1e6;
        let rate = all.len() as f64 / seconds;
        // The standard deviation of the mean of 50,000 exponential gaps is half a percent.
        assert!((rate / RATE - 1.0).abs() < 0.02, "{rate}");
    }

    #[test]
    fn gaps_are_exponential_not_even() {
        let all = arrivals(7);
        let gaps: Vec<f64> = all
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        assert!((variation - 1.0).abs() < 0.05, "{variation}");
    }

    #[test]
    fn a_seed_gives_the_same_arrivals_again_and_another_seed_others() {
        assert_eq!(arrivals(7), arrivals(7));
        assert_ne!(arrivals(7), arrivals(8));
    }
}
