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
//! **Words.** A *process* is one life of one copy of a service. Its memory is its tasks, and a crash drops them at an
//! *effect*: beginning a transaction, reading, committing, producing, committing offsets. A *fault* has a site, a
//! victim and a number, and leaving one fault out does not change the other faults ([`faults`]). The *nemesis* causes the
//! failures that do not happen at an effect. The *history* is what can be observed from outside; *checks* read nothing
//! else ([`checker`]).
//!
//! A run ([`run`]) has a time with failures, then one without: every saga must end, the system must come to rest, and
//! must stay at rest whatever is sent or read again. A failing seed is minimized: faults are left out as long as the
//! same check fails ([`minimize`]).
//!
//! ```text
//! cargo run --release -p saga-simulation --bin simulate -- --seeds 1000 --seed 1
//! ```
//!
//! **Deterministic** means that the same seed gives the same trace, which a test asserts. Tokio's single-threaded
//! runtime with a paused clock runs tasks in the order in which they are woken. All randomness comes from [`random`],
//! and no observable iteration is over a hash table.
//!
//! **Not simulated** are real SQL and real Kafka (a contract suite holds both implementations to the same promises),
//! HTTP, partitions of tables (only the effect of dropping them is simulated), and the retention of topics.
//!
//! # Bugs found
//!
//! A seed gives the same run only until a fault is added or its weight is changed. Each bug has a test of its own.
//!
//! | seed, then | check | bug |
//! |---|---|---|
//! | 269 | `events_are_gapless` | The timer that saw a command picked up was the same message as the one that ends the attempt a timeout later. After a crash following the first one and a takeover later than the timeout, the redelivered message ended the attempt, and its own event was never published. |
//! | 1032 | `nothing_needless` | A handler that waited for the locks of a stalled rival counted as over its time, and its command was answered with `error`: an attempt was lost because another process had stalled. |

pub mod checker;
mod client;
mod cluster;
#[cfg(test)]
mod contract;
pub mod faults;
mod hunt;
mod intake;
mod log;
pub mod minimize;
#[cfg(feature = "mutants")]
pub mod mutants;
mod nemesis;
mod operator;
mod participants;
mod process;
pub mod random;
mod replay;
mod reticent;
mod run;
mod store;
pub mod store_contract;
mod trace;
mod workload;
mod world;

pub use hunt::{Hunt, hunt};
pub use run::{Outcome, run};
#[doc(hidden)]
pub use saga_test_support::contract_tests;
pub use world::Plan;
