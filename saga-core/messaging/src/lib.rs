//! Messaging for sagas on Kafka and Postgres: the consumer's loop, the log, the outbox, dead letters and partitions.
//!
//! ```text
//! consume a batch ─▶ ONE database transaction ─▶ produce what follows, await the acks ─▶ commit the offsets
//!                    a redelivered input finds its work done and yields the output again
//! ```
//!
//! [`consumer::run`] is that loop, for the orchestrator and for every participant. It is generic over a log
//! ([`log::LogReader`], [`log::LogWriter`]) and over the work in the transaction ([`consumer::Processor`]). [`kafka`] is
//! the log that production uses. The processor of participants is in the crate `saga-participant`.

pub mod backpressure;
pub mod batcher;
pub mod consumer;
pub mod crash_point;
pub mod database;
pub mod dead_letter;
pub mod kafka;
pub mod linger;
pub mod log;
pub mod metric;
pub mod migrations;
pub mod outbox;
pub mod partition;
pub mod progress;
