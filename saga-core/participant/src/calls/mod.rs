//! External calls: they are never made in a transaction, never lost, and never have two effects.
//!
//! ```text
//!  batch's transaction          after the commit        settlement's transaction              publish, acks
//!  intent open, F = pending ──▶ call(key), bounded ───▶ outcome → F, business rows, the  ───▶ replies ─▶ the intent is
//!                               by time and number      commands that waited → replies                   closed with the
//!                                                       kept with the intent                             next settlement
//! ```
//!
//! A crash leaves an intent whose lease ends, and the sweep of any instance claims it: an open intent's call is made
//! again with the same key, and a settled intent's replies are sent again. A call without a definite answer stays open
//! and is repeated with the same key, which is the only way to learn its outcome. Once the external system may have
//! forgotten the key, the commands are answered `error`, the call is not made any more, and a person has to look (the
//! table's migration says how). A definite failure that is not saved leaves the barrier unchanged and raises the
//! generation, so that the next attempt has another key.
//!
//! Commands that arrive while a call is open wait with the intent. A duplicate is answered with the later attempt. A
//! resolve and a compensation are run through the barrier in the settlement's transaction, after the outcome, as if
//! they had arrived then. A charge that was cancelled is therefore refunded if it succeeded, with a call of its own,
//! and refused forever if it did not.

mod caller;
mod job;
mod open;
mod pace;
mod settle;

pub use job::{CallResult, Job, PendingReplies, PublishedIntent};
pub use open::{OpenCalls, SweepResult};
