//! The interface between a participant and its database. It is implemented for Postgres and by the simulator.
//!
//! ```text
//!  ParticipantStore::open ─▶ ParticipantTx: intents, locked │ barrier rows │ connection() for the handler
//!                                        └─ commit: everything, or nothing
//! ```
//!
//! The participant's correctness depends on these promises, which each implementation keeps:
//!
//! - A transaction that is dropped, or whose commit fails, leaves nothing behind. If the answer to a commit is lost,
//!   the transaction may be committed; it is reported as [`BatchError::Retry`] nevertheless.
//! - A read sees the data that was committed when the statement began, and the writes of its own transaction.
//! - A row that an open transaction wrote or locked makes a concurrent transaction that wants to write or lock it wait
//!   until the first one ends. Reading the barrier never waits.
//! - Writes are counted: a row that a concurrent transaction has inserted, settled or removed first is not counted, and
//!   is no error.
//! - The handler's writes through [`ParticipantTx::connection`] are part of the same transaction.

pub use super::{
    barrier::{BarrierRow, RowKey},
    calls::PublishedIntent,
    intent::{Intent, IntentState},
    reply::{PreparedReply, SavedReply},
};

use async_trait::async_trait;
use saga_core::ids::{SagaId, Timestamp};
use saga_messaging::consumer::BatchError;
use std::time::Duration;

/// Time and floors for the decisions of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxContext {
    /// The store's clock.
    pub now: Timestamp,
    /// Rows of sagas that began before this time, in milliseconds, may be forgotten here: no command of such a saga may
    /// have an effect.
    pub own_floor_ms: i64,
    /// The highest floor that a command has carried.
    pub seen_floor_ms: i64,
}

/// Rows of the barrier, and the transaction's context at the time of the read.
#[derive(Debug, PartialEq)]
pub struct BarrierSnapshot {
    pub terms: TxContext,
    pub rows: Vec<(RowKey, BarrierRow)>,
}

/// Upper limits for one sweep's claim.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    pub calls: usize,
    pub replies: usize,
    /// Other instances leave a claimed intent alone for this long.
    pub lease: Duration,
}

/// Intents whose lease had ended and that this instance has claimed.
#[derive(Debug)]
pub struct Claimed {
    pub now: Timestamp,
    /// Open intents, whose call must be made again.
    pub calls: Vec<(RowKey, Intent)>,
    /// Intents whose replies were not acknowledged and must be sent again.
    pub replies: Vec<(RowKey, Intent)>,
    /// Counts all intents that are open or whose replies are not acknowledged; `expired` counts the intents that
    /// need a person.
    pub open: i64,
    pub expired: i64,
}

/// Returns how long a statement may wait for each lock, out of its statement timeout. The share is small because a
/// handler may wait for several locks in a row. It distinguishes a concurrent transaction that has stalled with its
/// locks from a handler that exceeds its time. A wait for a lock is not the command's fault, and costs it no attempt.
pub fn lock_timeout(statement_timeout: Duration) -> Duration {
    statement_timeout / 8
}

/// A participant's database.
#[async_trait]
pub trait ParticipantStore: Send + Sync + 'static {
    /// The connection that a handler writes with.
    type Connection: Savepoints + 'static;
    type Tx: ParticipantTx<Connection = Self::Connection>;

    /// Begins a transaction, each of whose statements may take `statement_timeout`, so that an abandoned statement does
    /// not keep its locks. Within that time, a statement may wait [`lock_timeout`] for each lock; a longer wait is
    /// [`BatchError::Retry`].
    async fn open(&self, statement_timeout: Duration) -> Result<Self::Tx, BatchError>;

    /// Returns the store's time. An answer also proves that the store is available.
    async fn now(&self) -> Result<Timestamp, BatchError>;

    /// Claims intents whose lease is over, and skips those that a transaction has locked.
    async fn claim(&self, limits: ClaimLimits) -> Result<Claimed, BatchError>;
}

/// One transaction. Keys and ids arrive sorted and without duplicates.
#[async_trait]
pub trait ParticipantTx: Send {
    type Connection;

    /// Returns the connection for the handler.
    fn connection(&mut self) -> &mut Self::Connection;

    /// Stores the highest floor seen; a lower one changes nothing.
    async fn raise_seen_floor(&mut self, floor_ms: i64) -> Result<(), BatchError>;

    /// Locks and reads all intents of these sagas.
    async fn lock_intents(&mut self, sagas: &[SagaId])
    -> Result<Vec<(RowKey, Intent)>, BatchError>;

    /// Inserts the intents, or overwrites those stored.
    async fn write_intents(&mut self, rows: &[(&RowKey, &Intent)]) -> Result<(), BatchError>;

    async fn remove_intents(&mut self, rows: &[&RowKey]) -> Result<(), BatchError>;

    /// Closes intents whose replies are acknowledged: settled intents of that generation are removed, and released and
    /// expired intents have nothing more to send.
    async fn close_intents(&mut self, told: &[PublishedIntent]) -> Result<(), BatchError>;

    /// Reads all rows of these sagas without a lock. The transaction's context comes with them, because each statement
    /// is a round trip.
    async fn read_barrier(&mut self, sagas: &[SagaId]) -> Result<BarrierSnapshot, BatchError>;

    /// Inserts rows and returns how many were new. Waits for a concurrent transaction that is inserting the same row.
    async fn insert_barrier(&mut self, rows: &[(&RowKey, &BarrierRow)]) -> Result<u64, BatchError>;

    /// Writes the outcome of pending rows and returns how many were pending.
    async fn settle_barrier(&mut self, rows: &[(&RowKey, &BarrierRow)]) -> Result<u64, BatchError>;

    /// Removes pending rows and returns how many were pending.
    async fn release_barrier(&mut self, rows: &[&RowKey]) -> Result<u64, BatchError>;

    async fn commit(self) -> Result<(), BatchError>;
}

/// Savepoints within a transaction. At most one exists at a time; they are never nested.
#[async_trait]
pub trait Savepoints: Send {
    async fn savepoint(&mut self) -> Result<(), BatchError>;

    /// Keeps the writes since the savepoint.
    async fn release_savepoint(&mut self) -> Result<(), BatchError>;

    /// Undoes the writes since the savepoint.
    async fn roll_back_to_savepoint(&mut self) -> Result<(), BatchError>;
}
