//! What the outbox needs of its table. Postgres is one implementation, the simulator's is the other.
//!
//! Rows are `(id, records as bytes, claimed until)`. An id is never used twice. The bytes come back as they went in; the
//! outbox reads them, the store does not.

use crate::rule::BatchError;
use async_trait::async_trait;
use std::time::Duration;

/// In the caller's transaction: what it writes stands or falls with that.
#[async_trait]
pub trait OutboxTx: Send {
    /// A new row of `count` records, claimed for `lease` from now on, in place of the rows `settled`. Its id. Of those,
    /// some may be gone already: no error.
    async fn replace(
        &mut self,
        settled: &[i64],
        count: usize,
        records: &[u8],
        lease: Duration,
    ) -> Result<i64, BatchError>;
}

/// In transactions of its own.
#[async_trait]
pub trait OutboxStore: Send + Sync + 'static {
    /// Rows that are gone already are no error.
    async fn remove(&self, ids: &[i64]) -> Result<(), BatchError>;

    /// Claims at most `limit` of the oldest rows whose claim is over for `lease`, in the order of their ids, skipping
    /// those that a transaction holds.
    async fn claim(&self, limit: usize, lease: Duration)
    -> Result<Vec<(i64, Vec<u8>)>, BatchError>;

    /// Records in rows whose claim is over.
    async fn abandoned(&self) -> Result<u64, BatchError>;
}
