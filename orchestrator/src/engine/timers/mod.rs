//! The due times of sagas. A due time is stored in the saga's row. The owner of the saga's home partition holds it in
//! memory, and turns it into a message when it falls due. The message is appended to the home partition, *behind* every
//! reply that was there first.
//!
//! ```text
//! rows ─rescan, search─▶ queue ─due─▶ read offsets ─plan─▶ timer.due ──▶ home partition ──▶ engine ─changed─▶ queue
//! engine ────────────────▲                                                                                 ▲
//! delivery reports ──────┴── where each command stands ─────────────────────────────────────────────────────┘
//! ```
//!
//! A participant that is down may have a million sagas waiting for it. Once a saga has recorded its command as queued
//! (which takes one timer), that timer is finished: it is not part of the row's `next_due`, so no rescan finds it.
//! Instead, the row lists the command beside the state, and the owner *watches* the command: by its offset or, if a
//! previous owner sent it, by the end offsets of the topic. States are read only for commands that the participant has
//! consumed. A new owner finds the commands to watch by searching the table, a page at a time. The search then
//! continues slowly and never ends, because it finds the sagas that memory lacks when another process has changed them.
//!
//! A timeout runs from the time at which the pick-up of its command was seen. While commands are answered at once, no
//! offsets are read for this. When a command has been unanswered for a while, its participant's offsets are read every
//! few ticks, and memory keeps the time at which each command was first seen picked up. One reading serves all commands
//! of a participant, and the time that readings take limits how often they are made.
//!
//! [`queue`] is memory and decisions, without a clock and without I/O; [`pick_up`] is its knowledge of the commands in
//! flight and of the owned partitions. [`offsets`] supplies the offsets of the log, and the
//! [`timer_driver`](super::timer_driver) carries the decisions out.

pub mod offsets;
mod owned;
mod pick_up;
pub mod pick_up_status;
pub mod queue;
pub mod queued_index;
mod saga_timers;
