//! The deterministic simulation: the real engine, the real participant loop and barrier, and the real intake relay, over
//! a simulated log, simulated databases and a simulated clock, on one thread, from a seed.
//!
//! ```text
//!  seed ──▶ workload (definitions, orders, how participants take them)
//!    │                                        ┌───────────── world: time, dice, faults, trace ─────────────┐
//!    ├────▶ faults, one by one ─────────────▶ │ log ◀──▶ processes: orchestrator ×2, intake ×2,            │
//!    └────▶ nemesis: crashes, outages, people │ databases ◀──▶     order ×2, inventory ×2, payment ×2      │
//!                                             └──────────────── history ──▶ checker: named checks ─────────┘
//! ```
//!
//! **Words.** A *process* is one life of one copy of a service; its memory is its tasks, and a crash drops them at an
//! *effect*: beginning a transaction, reading, committing, producing, committing offsets. A *fault* has a site, a place
//! and a number, and each can be left out without changing what the others do ([`faults`]). The *nemesis* does what no
//! effect is the occasion for. The *history* is what was seen from outside; *checks* read nothing else ([`checker`]).
//!
//! A run ([`run`]) has a time of trouble, then none: everything must end, come to rest, and stay there whatever is sent
//! or read again. A failing seed is made small by leaving faults out for as long as the same check fails ([`minimize`]).
//!
//! ```text
//! cargo run --release -p saga-testkit --bin simulate -- --seeds 1000 --seed 1
//! ```
//!
//! **Deterministic** means: the same seed gives the same trace, which a test asserts. Tokio's single-threaded runtime
//! with a paused clock runs tasks in the order in which they are woken; everything random comes from [`random`], and
//! nothing iterates over a hash table where it could be seen.
//!
//! **Not in it**: real SQL and real Kafka (a contract suite holds both sides to the same promises), HTTP, partitions of
//! tables (forgetting is simulated as what it does), retention of topics.
//!
//! # Bugs found
//!
//! A seed stands for the same run only until a fault is added or its weight changed; each bug has a test of its own.
//!
//! | seed, then | check | what it was |
//! |---|---|---|
//! | 269 | `events_are_gapless` | The timer that saw a command picked up was the same message as the one that ends the attempt a timeout later. A crash behind the first and a takeover later than the timeout: the redelivered one ended the attempt, and its own event was never told. |
//! | 1032 | `nothing_needless` | A handler that waited for the locks of a rival that had stalled counted as over its time, and its command was answered `error`: an attempt was lost to somebody else's stall. |

pub mod checker;
mod cluster;
#[cfg(test)]
mod contract;
pub mod faults;
mod intake;
mod log;
pub mod minimize;
#[cfg(feature = "mutants")]
pub mod mutants;
mod nemesis;
mod participants;
mod process;
pub mod random;
mod replay;
mod run;
mod store;
mod trace;
mod workload;
mod world;

pub use run::{Outcome, run};
pub use world::Plan;

use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// What looking for a violation came to.
#[derive(Debug)]
pub struct Hunt {
    /// Seeds that were run, the failing one included.
    pub seeds: u64,
    pub events: u64,
    pub elapsed: Duration,
    /// The first seed that a check found something in.
    pub found: Option<(u64, Outcome)>,
}

/// Runs seeds until a check finds something, or none is left, or `budget` of real time is spent.
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
