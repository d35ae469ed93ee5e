//! The explored scenarios: the protocol as built under bounded trouble, and the same with one rule knocked out.

mod as_built;
mod budget;
mod knock_outs;

pub use as_built::as_built;
pub use knock_outs::{KnockOut, knock_outs};
