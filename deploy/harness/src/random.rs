//! Deterministic random numbers: the same seed gives the same plan of faults and the same orders on every machine and
//! with every version of every dependency.

use std::time::Duration;

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>: small, and random enough for choosing faults and orders.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a separate stream for each purpose, so that a change in the use of one stream leaves the other streams
    /// as they are.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(seed, |state, byte| {
            let mut next = Self(state ^ u64::from(byte));
            next.next()
        });
        Self(mixed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 up to, but not including, `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns a duration from `least` to `most`, both included, in whole milliseconds.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis() as u64;
        least + Duration::from_millis(self.below(span + 1))
    }

    /// Returns an element of a list, which must not be empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Picks a value at random, each in proportion to its weight. Returns `None` if all weights are 0.
    pub fn weighted<T: Copy>(&mut self, of: &[(u64, T)]) -> Option<T> {
        let total = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        for (weight, one) in of {
            if left < *weight {
                return Some(*one);
            }
            left -= weight;
        }
        None
    }

    pub fn uuid(&mut self) -> uuid::Uuid {
        let bytes = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_make_a_stream() {
        let stream = |seed, purpose| {
            let mut random = Random::new(seed, purpose);
            [(); 4].map(|()| random.below(1_000_000))
        };
        assert_eq!(stream(1, "plan"), stream(1, "plan"));
        assert_ne!(stream(1, "plan"), stream(2, "plan"));
        assert_ne!(stream(1, "plan"), stream(1, "client 0"));
    }

    #[test]
    fn weights_are_kept() {
        let mut random = Random::new(7, "weights");
        let heavy = (0..1_000)
            .filter(|_| random.weighted(&[(9, true), (1, false)]) == Some(true))
            .count();
        assert!((850..950).contains(&heavy), "{heavy}");
    }
}
