//! External calls: never in a transaction, never lost, never two effects.
//!
//! ```text
//!  batch's transaction          after the commit        settlement's transaction              publish, acks
//!  intent open, F = pending ──▶ call(key), bounded ───▶ outcome → F, business rows, the  ───▶ replies ─▶ the intent is
//!                               by time and number      commands that waited → replies                   closed with the
//!                                                       kept with the intent                             next settlement
//! ```
//!
//! A crash leaves an intent whose lease ends, and the sweep of any instance takes it: an open one is called again with
//! the same key, a settled one has its replies sent again. A call without a telling answer stays open and is repeated
//! with the same key, which is the only way to learn what became of it, until the outside may have forgotten the key:
//! then its commands are answered `error`, no call is made any more, and a person has to look (the table's migration
//! says how). A definite failure that is not saved leaves the barrier as it was and raises the generation, so that the
//! next attempt's key differs.
//!
//! Commands that arrive while a call is open wait with the intent: a duplicate is answered with the later attempt; a
//! resolve and a compensation are run through the barrier in the settlement's transaction, after the outcome, as if they
//! had arrived then. So a charge that was cancelled is refunded if it went through, with a call of its own, and is
//! refused for ever if it did not.

mod caller;
mod open;
mod pace;
mod settle;

pub use open::{Answered, Finished, Job, OpenCalls, Swept, Told};
