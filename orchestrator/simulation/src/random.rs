//! Random numbers that depend only on the seed, the question, the asker, and how often the question was asked before.
//!
//! Each question has a stream of its own. If one fault is left out, the answers to all other questions stay the same.
//! This makes it possible to minimize a failing run.

use std::collections::BTreeMap;

/// Hashes all parts with 64-bit FNV-1a (Fowler, Noll, Vo). Each part ends with a byte that does not occur in text.
pub fn digest<'a>(seed: u64, parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        part.iter().copied().for_each(&mut eat);
        eat(0xff);
    }
    mix(hash)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// All random streams of a run.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    asked: BTreeMap<u64, u64>,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            asked: BTreeMap::new(),
        }
    }

    /// Returns the next number of a stream.
    pub fn roll(&mut self, what: &str, who: &str) -> u64 {
        let stream = digest(self.seed, [what.as_bytes(), who.as_bytes()]);
        let count = self.asked.entry(stream).or_default();
        *count += 1;
        mix(stream ^ mix(*count))
    }

    /// Returns a number from 0 to `limit - 1`.
    pub fn below(&mut self, limit: u64, what: &str, who: &str) -> u64 {
        self.roll(what, who) % limit.max(1)
    }

    /// Returns a number from `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64, what: &str, who: &str) -> u64 {
        least + self.below(most.saturating_sub(least) + 1, what, who)
    }

    pub fn percent(&mut self, chance: u64, what: &str, who: &str) -> bool {
        self.below(100, what, who) < chance
    }

    /// Returns a random order of `0..count` (Fisher, Yates).
    pub fn order(&mut self, count: usize, what: &str, who: &str) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let other = self.below(last as u64 + 1, what, who) as usize;
            order.swap(last, other);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_does_not_depend_on_the_others() {
        let mut one = Dice::new(7);
        let mut two = Dice::new(7);
        two.roll("crash", "orchestrator-1");
        two.roll("latency", "orchestrator-2");
        let rolls = |dice: &mut Dice| [0; 4].map(|_| dice.roll("latency", "orchestrator-1"));
        assert_eq!(rolls(&mut one), rolls(&mut two));
    }

    #[test]
    fn an_order_has_everybody_once() {
        let mut order = Dice::new(1).order(9, "o", "w");
        order.sort_unstable();
        assert_eq!(order, (0..9).collect::<Vec<_>>());
    }
}
