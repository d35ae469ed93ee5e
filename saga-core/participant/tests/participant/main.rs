//! Tests the command processor and its external calls on a real Postgres without Kafka, with records made by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_records;
mod barrier;
mod calls;
mod contract;
mod over_kafka;
mod partitions;
mod random;
mod retention;
mod router;
mod silence;
mod topics;
mod world;
