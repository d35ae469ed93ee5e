//! Stages records in the caller's transaction.

use super::{codec, storage::OutboxTx};
use crate::{consumer::BatchError, log::LogError};
use metrics::gauge;
use saga_core::message::OutgoingRecord;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Most rows that one statement removes, so that a batch after an outage stays a small transaction.
const SETTLE_LIMIT: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("the outbox's table could not be used")]
    Store(#[from] BatchError),
    #[error("the log did not take the outbox's records")]
    Log(#[source] LogError),
}

/// State that the outbox and its relay share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Rows whose records are acknowledged and that are not removed yet.
    acked: Mutex<BTreeSet<i64>>,
    /// Records that were staged here and are not acknowledged yet.
    pub(super) unsent: AtomicU64,
    /// Records in rows without a lease, as the last sweep counted them.
    pub(super) abandoned: AtomicU64,
}

impl Shared {
    pub(super) fn acked(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn backlog(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed) + self.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn report(&self) {
        gauge!("saga_outbox_backlog_records").set(self.backlog() as f64);
    }
}

/// The end of the outbox that stages records. Clones share everything.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Duration,
}

impl Outbox {
    /// Writes `records` as one row in the caller's transaction and removes rows whose records are acknowledged. After
    /// the commit, hand the batch to [`Relay::publish_soon`]. Dropping the batch means that the transaction was rolled
    /// back; if it was committed nevertheless, the sweep sends the records.
    pub async fn stage(
        &self,
        transaction: &mut impl OutboxTx,
        records: &[OutgoingRecord],
    ) -> Result<StagedBatch, OutboxError> {
        self.stage_owned(transaction, records.to_vec()).await
    }

    /// Stages records like [`Outbox::stage`], without copying them.
    pub async fn stage_owned(
        &self,
        transaction: &mut impl OutboxTx,
        records: Vec<OutgoingRecord>,
    ) -> Result<StagedBatch, OutboxError> {
        let acked = self.acked_rows();
        let text = codec::encode(&records);
        let id = transaction
            .replace(&acked.ids, records.len(), &text, self.lease)
            .await?;
        Ok(StagedBatch { id, records, acked })
    }

    /// Takes the rows whose records are acknowledged, to remove them. If the transaction that removes them is rolled
    /// back, their records are sent again when the lease is over, and readers recognize the duplicates.
    pub(super) fn acked_rows(&self) -> AckedRows {
        let mut acked = self.shared.acked();
        let ids: Vec<i64> = acked.iter().take(SETTLE_LIMIT).copied().collect();
        for id in &ids {
            acked.remove(id);
        }
        drop(acked);
        AckedRows {
            shared: Arc::clone(&self.shared),
            ids,
            committed: false,
        }
    }

    /// Returns the number of records that are staged and not yet acknowledged, as far as this process knows. Above a
    /// bound of the caller's, intake pushes back.
    pub fn backlog(&self) -> u64 {
        self.shared.backlog()
    }
}

/// Ids that a transaction removes. They are put back unless the transaction is known to be committed.
#[derive(Debug)]
pub(super) struct AckedRows {
    shared: Arc<Shared>,
    pub(super) ids: Vec<i64>,
    committed: bool,
}

impl AckedRows {
    pub(super) fn commit(&mut self) {
        self.committed = true;
    }
}

impl Drop for AckedRows {
    fn drop(&mut self) {
        if !self.committed {
            self.shared.acked().extend(self.ids.drain(..));
        }
    }
}

/// A batch whose row is written in a transaction that is not known to be committed.
#[derive(Debug)]
#[must_use = "hand it to Relay::publish_soon after the commit"]
pub struct StagedBatch {
    pub(super) id: i64,
    pub(super) records: Vec<OutgoingRecord>,
    pub(super) acked: AckedRows,
}
