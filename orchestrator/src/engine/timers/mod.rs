//! Due times. They stand in the row; their owner, who has the saga's home partition, holds them in memory and turns
//! what falls due into messages, which stand in the home partition *behind* every reply that was there first.
//!
//! ```text
//! rows ─rescan, search─▶ queue ─due─▶ read offsets ─plan─▶ timer.due ──▶ home partition ──▶ engine ─changed─▶ queue
//! engine ────────────────▲                                                                                 ▲
//! delivery reports ──────┴── where each command stands ─────────────────────────────────────────────────────┘
//! ```
//!
//! A participant that is away may have a million sagas wait for it. Once a saga knows its command to be queued (that takes
//! one timer), that timer is over: it is no part of the row's `next_due`, so no rescan finds it. The row lists the command
//! beside the state instead, and the owner *watches* it: by the command's place, or by the topic's end for what an owner
//! before it sent. States are read only of what the participant has come past. A new owner finds what there is to watch
//! by a search through the table, a page at a time, which goes on slowly ever after: it is what finds a saga that memory
//! should have missed, because another process moved it.
//!
//! [`queue`] is memory and decisions, without a clock and without I/O; [`driver`] carries them out; [`offsets`] is
//! what both are told of the log.

pub mod driver;
mod entry;
pub mod offsets;
mod owned;
pub mod queue;
pub mod verdict;
pub mod watchlist;
