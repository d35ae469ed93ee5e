//! What the engine needs of a store. Postgres is one implementation, the simulator's is the other.

use super::timers::watchlist::Watched;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use saga_core::{
    definition::{DefinitionHash, SagaDefinition},
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, SagaInstance, Waiting},
    message::OperatorAction,
};
use saga_messaging::rule::BatchError;
use std::collections::HashSet;
use uuid::Uuid;

/// A saga that has not ended, as it stood when it was read or written last.
#[derive(Clone, Debug)]
pub struct LiveRow {
    pub instance: SagaInstance,
    pub version: i64,
    pub start_hash: Vec<u8>,
}

/// A saga that has ended.
#[derive(Clone, Debug)]
pub struct EndedRow {
    pub instance: SagaInstance,
    pub start_hash: Vec<u8>,
}

/// Everything a batch has to know before it decides.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The database's clock, milliseconds: read behind the rows, or told from when it was read last if there was nothing
    /// to read.
    pub now: DateTime<Utc>,
    /// No saga that is older is started: it may have run, and been forgotten. Compared again in the transaction that
    /// writes, since upkeep raises it in the table and forgets nothing until everybody goes by it. `None` if there was
    /// nothing to read; then all sagas are live.
    pub starts_from: Option<Timestamp>,
    pub live: Vec<LiveRow>,
    pub ended: Vec<EndedRow>,
    /// Actions that stand in the audit table: they are decided once.
    pub decided: HashSet<Uuid>,
}

/// A saga as it is to be written.
#[derive(Clone, Debug)]
pub struct SagaRow {
    pub instance: SagaInstance,
    /// That the table must have; 0 for a start.
    pub version: i64,
    pub start_hash: Vec<u8>,
    pub waiting: Waiting,
    /// Of its timers, those of queued commands left out: they have come, and nothing follows from it.
    pub next_due: Option<Timestamp>,
    /// Commands that the saga knows to be queued.
    pub queued: Vec<Watched>,
    pub last_error: Option<String>,
}

/// An audit row.
#[derive(Clone, Debug)]
pub struct ActionRow {
    pub action: OperatorAction,
    pub verdict: ActionVerdict,
    pub decided_at: Timestamp,
    pub status_before: Option<&'static str>,
    pub status_after: Option<&'static str>,
}

/// What became of an action whose audit row says `pending`.
#[derive(Clone, Debug)]
pub struct SettledRow {
    pub action_id: Uuid,
    pub verdict: ActionVerdict,
    pub decided_at: Timestamp,
    pub status_after: &'static str,
}

/// The net changes of a batch. Rows of each list are in id order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub starts: Vec<SagaRow>,
    pub updates: Vec<SagaRow>,
    /// Version 1 for a saga that starts and ends in the same batch: it stands in `starts` too.
    pub ends: Vec<SagaRow>,
    pub actions: Vec<ActionRow>,
    /// Written behind `actions`: an action may be asked for and settled in one batch.
    pub settled: Vec<SettledRow>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
            && self.updates.is_empty()
            && self.ends.is_empty()
            && self.actions.is_empty()
            && self.settled.is_empty()
    }
}

/// Begins batches.
#[async_trait]
pub trait SagaStore: Send + Sync + 'static {
    type Batch: SagaBatch;

    async fn begin(&self) -> Result<Self::Batch, BatchError>;

    /// Sagas will be moved by others: what this process wrote of them may no longer be so.
    fn forget(&self);
}

/// One batch, under optimistic concurrency control: nothing is locked while it decides, and what it decided from is
/// compared when it writes. Dropped without [`SagaBatch::commit`], it leaves nothing behind.
#[async_trait]
pub trait SagaBatch: Send {
    /// The live rows of `sagas`, in id order, the others as history has them, and which of `actions` are decided already.
    /// What this process wrote last may stand for what is in the table; [`SagaBatch::commit`] compares it.
    async fn load(&mut self, sagas: &[SagaId], actions: &[Uuid]) -> Result<Loaded, BatchError>;

    /// A registered definition that this process does not hold.
    async fn definition(
        &mut self,
        hash: &DefinitionHash,
    ) -> Result<Option<SagaDefinition>, BatchError>;

    /// Writes the plan, if any, in one transaction. A rival was first if a saga is not at the version that was decided
    /// from, also one that the plan leaves alone, if one of the starts lives, has ended, or is below the floor of starts
    /// by now, or if one of the actions was decided: then nothing is written, and the batch is to be run again
    /// ([`BatchError::Retry`]).
    async fn commit(self, plan: &Plan) -> Result<(), BatchError>;
}
