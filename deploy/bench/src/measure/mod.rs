//! Measures what a stage costs: counters before and after, and the most memory that was seen in between.

mod kafka;
mod machine;
mod postgres;
mod probe;
mod proc;

pub use machine::Machine;
pub use postgres::describe as describe_postgres;
#[cfg(test)]
pub use probe::Process;
pub use probe::{Cost, KAFKA, LOAD_GENERATOR, Memory, POSTGRES, Probe, Snapshot};
pub use proc::{Watched, descriptors};
