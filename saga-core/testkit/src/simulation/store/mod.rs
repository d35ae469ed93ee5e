//! Simulated databases: rows, row locks, and transactions that stand or fall as a whole.
//!
//! As in Postgres at READ COMMITTED: a statement sees what is committed when it runs, and what its own transaction
//! wrote; a row that a transaction has locked or written makes others that want to write or lock it wait; a rival's
//! unfinished insert of the same key makes an insert wait. What a transaction wrote becomes visible at once when it
//! commits, and never if it is dropped. A crashed client's locks may stay for a while.

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
