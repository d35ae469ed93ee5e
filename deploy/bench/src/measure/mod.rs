//! What a stage costs: counters before and after, and the most that was seen in between.

mod kafka;
mod machine;
mod postgres;
mod probe;
mod proc;

pub use machine::Machine;
pub use postgres::describe as describe_postgres;
pub use probe::{Cost, KAFKA, LOAD_GENERATOR, Memory, POSTGRES, Probe, Process, Snapshot};
pub use proc::{Watched, descriptors};
