//! Due times. They stand in the row; their owner, who has the saga's home partition, holds them in memory and turns
//! what falls due into messages, which stand in the home partition *behind* every reply that was there first.
//!
//! ```text
//! rows ──rescan──▶ queue ──due──▶ read offsets ──plan──▶ timer.due ──▶ home partition ──▶ engine ──changed──▶ queue
//! engine ──────────▲                                                                                     ▲
//! delivery reports ┴── where each command stands ────────────────────────────────────────────────────────┘
//! ```
//!
//! [`queue`] is memory and decisions, without a clock and without I/O; [`driver`] carries them out; [`offsets`] is
//! what both are told of the log.

pub mod driver;
pub mod offsets;
pub mod queue;
pub mod verdict;
pub mod watchlist;
