//! The interface between the outbox and its table. It is implemented for Postgres and by the simulator.
//!
//! A row is `(id, records as bytes, claimed until)`. An id is never used twice. The bytes are returned unchanged; the
//! outbox interprets them, the store does not.

use crate::consumer::BatchError;
use async_trait::async_trait;
use std::time::Duration;

/// The part that runs in the caller's transaction, and is committed or rolled back with it.
#[async_trait]
pub trait OutboxTx: Send {
    /// Inserts a row of `count` records with a lease of `lease` from now on, removes the rows `acked`, and returns
    /// the new row's id. Rows of `acked` that are gone already are no error.
    async fn replace(
        &mut self,
        acked: &[i64],
        count: usize,
        records: &[u8],
        lease: Duration,
    ) -> Result<i64, BatchError>;
}

/// The part that runs in transactions of its own.
#[async_trait]
pub trait OutboxStore: Send + Sync + 'static {
    /// Removes rows. Rows that are gone already are no error.
    async fn remove(&self, ids: &[i64]) -> Result<(), BatchError>;

    /// Claims for `lease` at most `limit` of the oldest rows whose lease is over, and returns them in the order of
    /// their ids. Rows that a transaction has locked are skipped.
    async fn claim(&self, limit: usize, lease: Duration)
    -> Result<Vec<(i64, Vec<u8>)>, BatchError>;

    /// Returns the number of records in rows whose lease is over.
    async fn abandoned(&self) -> Result<u64, BatchError>;
}
