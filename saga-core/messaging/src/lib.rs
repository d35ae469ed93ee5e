//! Messaging for sagas on Kafka and Postgres: the one rule of every consumer, and what participants need to be
//! idempotent.
//!
//! ```text
//! consume a batch ─▶ ONE database transaction ─▶ produce what follows, await the acks ─▶ commit the offsets
//!                    a redelivered input finds its work done and yields the output again
//! ```
//!
//! [`rule::run`] is that rule, once, for the orchestrator and for every participant. It is generic over a log
//! ([`log::LogReader`], [`log::LogWriter`]) and over what happens in the transaction ([`rule::Processor`]).
//! [`participant`] is the processor that participants use; [`kafka`] is the log that production uses.

pub mod batcher;
pub mod crash_point;
pub mod dead_letter;
mod gather;
pub mod kafka;
pub mod log;
pub mod metric;
pub mod migrations;
pub mod outbox;
pub mod participant;
pub mod partition;
pub mod pressure;
pub mod rule;

/// The README's Rust is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
