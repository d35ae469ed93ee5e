//! The interface of the store that the engine uses. Postgres is one implementation, the simulator has another.

use super::timers::queued_index::QueuedCommand;
use crate::registry::Catalog;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, SagaInstance, Waiting},
    message::OperatorAction,
};
use saga_messaging::consumer::BatchError;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use thiserror::Error;
use uuid::Uuid;

/// The name of a definition, and a business key.
pub type BusinessKeyOf = (String, String);

/// A saga that has not ended, as it was last read or written.
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

/// Everything that a batch must know before it decides.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The database's clock in whole milliseconds. It is read after the rows, or extrapolated from its last reading if
    /// there was nothing to read.
    pub now: DateTime<Utc>,
    /// No saga that is older is started, because it may have run and been forgotten. The value is compared again in the
    /// transaction that writes: upkeep raises the value in the table, and forgets nothing until every process uses the
    /// new value. `None` if there was nothing to read; then all sagas are live.
    pub starts_from: Option<Timestamp>,
    /// The generation of the definition table, which is compared again when starts are written. `None` if there was
    /// nothing to read; then no saga starts.
    pub generation: Option<i64>,
    /// The live sagas that hold one of the requested business keys, by that key.
    pub holders: BTreeMap<BusinessKeyOf, SagaId>,
    pub live: Vec<LiveRow>,
    pub ended: Vec<EndedRow>,
    /// Actions that are already in the audit table. An action is decided only once.
    pub decided: HashSet<Uuid>,
}

/// A saga's row to write.
#[derive(Clone, Debug)]
pub struct SagaRow {
    pub instance: SagaInstance,
    /// The version that the row must have in the table; 0 for a start.
    pub version: i64,
    pub start_hash: Vec<u8>,
    pub waiting: Waiting,
    /// The earliest due time of the saga's timers, except those of commands that are known to be queued: these have
    /// fired already, and nothing more follows from them.
    pub next_due: Option<Timestamp>,
    /// Commands that the saga has recorded as queued.
    pub queued: Vec<QueuedCommand>,
    pub last_error: Option<String>,
    /// True if no other live saga of its definition may have the saga's business key. This is set at the start and
    /// never changes.
    pub has_key_to_itself: bool,
}

/// An audit row of an operator's action.
#[derive(Clone, Debug)]
pub struct ActionRow {
    pub action: OperatorAction,
    pub verdict: ActionVerdict,
    pub decided_at: Timestamp,
    pub status_before: Option<&'static str>,
    pub status_after: Option<&'static str>,
}

/// The final verdict on an action whose audit row says `pending`.
#[derive(Clone, Debug)]
pub struct SettledRow {
    pub action_id: Uuid,
    pub verdict: ActionVerdict,
    pub decided_at: Timestamp,
    pub status_after: &'static str,
}

/// The net changes of a batch. The rows of each list are in id order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The generation of the definition table from which the versions of `starts` were chosen.
    pub generation: i64,
    pub starts: Vec<SagaRow>,
    pub updates: Vec<SagaRow>,
    /// Sagas that end. A saga that starts and ends in the same batch has version 1 here, and is in `starts` too.
    pub ends: Vec<SagaRow>,
    pub actions: Vec<ActionRow>,
    /// Verdicts that are written after `actions`, because an action may be requested and settled in one batch.
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

/// Reads the registered definitions and participants.
#[async_trait]
pub trait DefinitionStore: Send + Sync + 'static {
    /// Returns everything that is registered. The definitions and their generation are from one snapshot.
    async fn catalog(&self) -> Result<Catalog, CatalogError>;
}

/// The definition table cannot be read now.
#[derive(Debug, Error)]
#[error("the definition table cannot be read")]
pub struct CatalogError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl From<CatalogError> for BatchError {
    fn from(error: CatalogError) -> Self {
        Self::Retry(Box::new(error))
    }
}

/// A store of sagas, on which batches begin.
#[async_trait]
pub trait SagaStore: DefinitionStore {
    type Batch: SagaBatch;

    async fn begin(&self) -> Result<Self::Batch, BatchError>;

    /// Forgets the sagas that this process has cached, because other processes will change them from now on.
    fn forget(&self);
}

/// One batch, under optimistic concurrency control: nothing is locked while the batch decides, and the versions that it
/// decided from are compared when it writes. A batch that is dropped without [`SagaBatch::commit`] changes nothing.
#[async_trait]
pub trait SagaBatch: Send {
    /// Returns the live rows of `sagas` in id order, the rows of the ended ones from history, and the ids in `actions`
    /// that are already decided. For each of `keys` that a live saga holds, returns that saga. A row that this process
    /// wrote last may be returned instead of the row in the table; [`SagaBatch::commit`] compares its version.
    async fn load(
        &mut self,
        sagas: &[SagaId],
        actions: &[Uuid],
        keys: &BTreeSet<BusinessKeyOf>,
    ) -> Result<Loaded, BatchError>;

    /// Writes the plan, if it has changes, in one transaction. If a rival was first, writes nothing and fails with
    /// [`BatchError::Retry`], so that the batch runs again. A rival was first if
    ///
    /// - a saga is not at the version that was decided from, even a saga that the plan does not write;
    /// - one of the starts is live, has ended, or is now below the floor of starts;
    /// - another saga holds the business key of one of the starts;
    /// - the definition table is at another generation than the one from which the starts were decided;
    /// - one of the actions is already decided.
    async fn commit(self, plan: &Plan) -> Result<(), BatchError>;
}
