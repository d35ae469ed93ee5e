//! Runs seeds until a check finds a violation.

use crate::{Outcome, Plan, run};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// The result of a hunt for a violation.
#[derive(Debug)]
pub struct Hunt {
    /// Number of seeds that were run, including the failing one.
    pub seeds: u64,
    pub events: u64,
    pub elapsed: Duration,
    /// The first seed with a violation, and its outcome.
    pub found: Option<(u64, Outcome)>,
}

/// Runs seeds until a check finds a violation, no seed is left, or `budget` of real time is spent.
pub fn hunt(seeds: Range<u64>, budget: Duration) -> Hunt {
    let began = Instant::now();
    let mut hunt = Hunt {
        seeds: 0,
        events: 0,
        elapsed: Duration::ZERO,
        found: None,
    };
    for seed in seeds {
        let outcome = run(&Plan {
            seed,
            ..Plan::default()
        });
        hunt.seeds += 1;
        hunt.events += outcome.events;
        hunt.elapsed = began.elapsed();
        if outcome.violation.is_some() {
            hunt.found = Some((seed, outcome));
            break;
        }
        if hunt.elapsed > budget {
            break;
        }
    }
    hunt
}
