//! Simulated databases: rows, row locks, and transactions that are applied completely or not at all.
//!
//! The databases behave like Postgres at READ COMMITTED. A statement sees what is committed when it runs, and its own
//! transaction's writes. A row that a transaction has locked or written blocks other transactions that write or lock
//! it. A rival's uncommitted insert of the same key blocks an insert. A transaction's writes become visible at once
//! when it commits, and never if it is dropped. The locks of a crashed client may be kept for a while.

mod connection;
mod database;
mod outbox;
mod participant;
mod saga;

pub use connection::{Effect, ParticipantTables, SimConnection};
pub use database::Database;
pub use outbox::SimOutbox;
pub use participant::SimParticipantStore;
pub use saga::{SagaTables, SimSagaStore};
