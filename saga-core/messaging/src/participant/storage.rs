//! What a participant needs of its database. Postgres is one implementation, the simulator's is the other.
//!
//! ```text
//!  ParticipantStore::open ─▶ ParticipantTx: intents, locked │ barrier rows │ connection() for the handler
//!                                        └─ commit: everything, or nothing
//! ```
//!
//! An implementation keeps these promises; the participant's correctness rests on them:
//!
//! - A transaction that is dropped, or whose commit fails, leaves nothing behind. One whose commit's answer is lost may
//!   stand; it is reported as [`BatchError::Retry`] all the same.
//! - Reads see what is committed when the statement begins, and what their own transaction wrote.
//! - A row that an open transaction wrote or locked makes a rival that wants to write or lock it wait until that ends.
//!   Reading the barrier waits for nobody.
//! - Writes are counted: a row that a rival has inserted, settled or removed first is not counted, and is no error.
//! - What the handler writes through [`ParticipantTx::connection`] is part of the same transaction.

pub use super::{
    barrier::{Entry, RowKey},
    calls::Told,
    intent::{Intent, IntentState},
    reply::{PreparedReply, SavedReply},
};

use crate::rule::BatchError;
use async_trait::async_trait;
use saga_core::ids::{SagaId, Timestamp};
use std::time::Duration;

/// What a transaction goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The store's clock.
    pub now: Timestamp,
    /// What began before this many ms may be forgotten here: no command of it may have an effect.
    pub own_floor_ms: i64,
    /// The highest floor that a command has carried.
    pub seen_floor_ms: i64,
}

/// Rows of the barrier, and the terms as they were when these were read.
#[derive(Debug, PartialEq)]
pub struct Looked {
    pub terms: Terms,
    pub rows: Vec<(RowKey, Entry)>,
}

/// How much a sweep takes over at most.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    pub calls: usize,
    pub replies: usize,
    /// How long what is taken over is left alone by other instances.
    pub lease: Duration,
}

/// Intents that nobody was at any more, and are this instance's now.
#[derive(Debug)]
pub struct Claimed {
    pub now: Timestamp,
    /// Open ones: to be called again.
    pub calls: Vec<(RowKey, Intent)>,
    /// Ones whose replies were not acknowledged: to be sent again.
    pub replies: Vec<(RowKey, Intent)>,
    /// How many are open or unanswered in all, and how many wait for a person.
    pub open: i64,
    pub expired: i64,
}

/// Of a statement's time, what it may wait for each lock. A small share, since a handler may wait for several in a row:
/// so a rival that has stalled with its locks is told from a handler that is over its time. Waiting is nobody's fault,
/// and costs no command an attempt.
pub fn lock_timeout(statement_timeout: Duration) -> Duration {
    statement_timeout / 8
}

/// A participant's database.
#[async_trait]
pub trait ParticipantStore: Send + Sync + 'static {
    /// What a handler writes with.
    type Connection: Savepoints + 'static;
    type Tx: ParticipantTx<Connection = Self::Connection>;

    /// Begins a transaction, each of whose statements may take `statement_timeout`: what nobody waits for any more must
    /// not keep its locks. Of that, a statement may wait [`lock_timeout`] for each lock; then it is
    /// [`BatchError::Retry`].
    async fn open(&self, statement_timeout: Duration) -> Result<Self::Tx, BatchError>;

    /// The store's clock; an answer also says that the store is there.
    async fn now(&self) -> Result<Timestamp, BatchError>;

    /// Takes over intents whose lease is over, skipping those that a transaction holds.
    async fn claim(&self, limits: ClaimLimits) -> Result<Claimed, BatchError>;
}

/// One transaction. Keys and ids arrive sorted and without duplicates.
#[async_trait]
pub trait ParticipantTx: Send {
    type Connection;

    /// For the handler.
    fn connection(&mut self) -> &mut Self::Connection;

    /// Keeps the highest floor; a lower one changes nothing.
    async fn raise_seen_floor(&mut self, floor_ms: i64) -> Result<(), BatchError>;

    /// Locks and reads all intents of these sagas.
    async fn lock_intents(&mut self, sagas: &[SagaId])
    -> Result<Vec<(RowKey, Intent)>, BatchError>;

    /// Inserts, or overwrites what stands there.
    async fn write_intents(&mut self, rows: &[(&RowKey, &Intent)]) -> Result<(), BatchError>;

    async fn remove_intents(&mut self, rows: &[&RowKey]) -> Result<(), BatchError>;

    /// The replies of these intents are acknowledged: settled ones of that generation go, released and expired ones
    /// have nothing more to send.
    async fn close_intents(&mut self, told: &[Told]) -> Result<(), BatchError>;

    /// Reads all rows of these sagas, without a lock, and the terms, since each statement is a round trip.
    async fn read_barrier(&mut self, sagas: &[SagaId]) -> Result<Looked, BatchError>;

    /// Rows that were not there and are now; waits for a rival that is inserting the same.
    async fn insert_barrier(&mut self, rows: &[(&RowKey, &Entry)]) -> Result<u64, BatchError>;

    /// Rows that were pending and have their outcome now.
    async fn settle_barrier(&mut self, rows: &[(&RowKey, &Entry)]) -> Result<u64, BatchError>;

    /// Rows that were pending and are gone now.
    async fn release_barrier(&mut self, rows: &[&RowKey]) -> Result<u64, BatchError>;

    async fn commit(self) -> Result<(), BatchError>;
}

/// Within a transaction, what can be undone alone. One at a time, never nested.
#[async_trait]
pub trait Savepoints: Send {
    async fn savepoint(&mut self) -> Result<(), BatchError>;

    /// Keeps what was written since the savepoint.
    async fn release_savepoint(&mut self) -> Result<(), BatchError>;

    /// Undoes what was written since the savepoint.
    async fn roll_back_to_savepoint(&mut self) -> Result<(), BatchError>;
}
