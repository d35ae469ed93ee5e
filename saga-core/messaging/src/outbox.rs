//! The outbox: messages that follow from work that no message started, such as an HTTP request.
//!
//! ```text
//!  ┌── the caller's transaction ──┐
//!  │ its rows                     │ commit   ┌── Relay ────────────────────┐
//!  │ stage(records): one row ─────┼────────▶ │ publish_soon: from memory,  │──▶ Kafka, acks
//!  │ (+ removes rows acked since) │          │ in the order of staging     │
//!  └──────────────────────────────┘          │ sweep: what a crash left    │
//!                                            └─────────────────────────────┘
//! ```
//!
//! A *batch* of records is one row. After the commit, the records are sent straight from memory; their row is removed
//! in the transaction of the next batch, or by the sweep if there is none. Rows that a crash left behind are found by
//! age: each row has a lease, and the sweep claims the rows whose lease is over, `FOR UPDATE SKIP LOCKED`, so that any
//! number of instances share the work. The sweep never looks for `id > last seen`, because the order of a sequence is
//! not the order of commits.
//!
//! A record may be sent twice, but never not at all. Its id is deterministic, so its readers recognize a duplicate.

mod codec;
mod relay;
mod staging;
pub mod storage;
mod store;

pub use relay::{Relay, RelaySettings};
pub use staging::{Outbox, OutboxError, StagedBatch};

#[cfg(test)]
mod tests;
