//! A store in memory with the same guarantees as the real one: a batch is written as a whole or not at all, and the
//! store counts what the batch changes. It also counts what its timers read.

use crate::engine::{
    saga_store::{
        ActionRow, BusinessKeyOf, CatalogError, DefinitionStore, EndedRow, LiveRow, Loaded, Plan,
        SagaBatch, SagaRow, SagaStore,
    },
    timer_driver::{QueuedPage, TimerStore, TimerStoreError},
    timers::{
        queue::{DueRow, QueuedRow},
        queued_index::QueuedCommand,
    },
};
use crate::registry::Catalog;
use async_trait::async_trait;
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
};
use saga_messaging::consumer::BatchError;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};
use uuid::Uuid;

#[derive(Clone)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
}

pub struct Tables {
    pub now: Timestamp,
    pub live: BTreeMap<SagaId, LiveRow>,
    pub history: BTreeMap<SagaId, EndedRow>,
    pub actions: BTreeMap<Uuid, ActionRow>,
    /// Columns of the live rows.
    pub columns: BTreeMap<SagaId, Columns>,
    pub reads: Reads,
    /// The registered definitions.
    pub catalog: Catalog,
    pub catalogs_read: usize,
    failing_commits: u32,
}

#[derive(Clone, Default)]
pub struct Columns {
    pub next_due: Option<Timestamp>,
    pub queued: Vec<QueuedCommand>,
    pub has_key_to_itself: bool,
}

/// The number of reads that the timers have made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub rescans: usize,
    pub due_rows: usize,
    pub queued_rows: usize,
    pub states: usize,
}

pub struct MemoryBatch {
    tables: Arc<Mutex<Tables>>,
}

impl MemoryStore {
    pub fn new(now: Timestamp) -> Self {
        let tables = Tables {
            now,
            live: BTreeMap::new(),
            history: BTreeMap::new(),
            actions: BTreeMap::new(),
            columns: BTreeMap::new(),
            reads: Reads::default(),
            catalog: Catalog::default(),
            catalogs_read: 0,
            failing_commits: 0,
        };
        Self {
            tables: Arc::new(Mutex::new(tables)),
        }
    }

    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    pub fn now(&self) -> Timestamp {
        self.tables().now
    }

    pub fn fail_commits(&self, count: u32) {
        self.tables().failing_commits = count;
    }

    pub fn live(&self, saga: SagaId) -> SagaInstance {
        self.tables().live[&saga].instance.clone()
    }

    pub fn ended(&self, saga: SagaId) -> SagaInstance {
        self.tables().history[&saga].instance.clone()
    }
}

#[async_trait]
impl DefinitionStore for MemoryStore {
    async fn catalog(&self) -> Result<Catalog, CatalogError> {
        let mut tables = self.tables();
        tables.catalogs_read += 1;
        Ok(tables.catalog.clone())
    }
}

#[async_trait]
impl SagaStore for MemoryStore {
    type Batch = MemoryBatch;

    async fn begin(&self) -> Result<MemoryBatch, BatchError> {
        Ok(MemoryBatch {
            tables: Arc::clone(&self.tables),
        })
    }

    fn forget(&self) {}
}

#[async_trait]
impl SagaBatch for MemoryBatch {
    async fn load(
        &mut self,
        sagas: &[SagaId],
        actions: &[Uuid],
        keys: &BTreeSet<BusinessKeyOf>,
    ) -> Result<Loaded, BatchError> {
        let tables = self.tables.lock().unwrap();
        let own_key = |row: &LiveRow| {
            let key = row.instance.business_key.clone()?;
            let key = (row.instance.definition.clone(), key);
            let columns = tables.columns.get(&row.instance.id);
            let holds =
                columns.is_some_and(|columns| columns.has_key_to_itself) && keys.contains(&key);
            holds.then_some((key, row.instance.id))
        };
        Ok(Loaded {
            now: tables.now,
            starts_from: None,
            generation: Some(tables.catalog.generation),
            holders: tables.live.values().filter_map(own_key).collect(),
            live: sagas
                .iter()
                .filter_map(|id| tables.live.get(id))
                .cloned()
                .collect(),
            ended: sagas
                .iter()
                .filter_map(|id| tables.history.get(id))
                .cloned()
                .collect(),
            decided: actions
                .iter()
                .filter(|id| tables.actions.contains_key(id))
                .copied()
                .collect(),
        })
    }

    async fn commit(self, plan: &Plan) -> Result<(), BatchError> {
        let mut tables = self.tables.lock().unwrap();
        if tables.failing_commits > 0 {
            tables.failing_commits -= 1;
            return Err(BatchError::Retry("the store is unavailable".into()));
        }
        if !plan.starts.is_empty() {
            assert_eq!(plan.generation, tables.catalog.generation, "generation");
        }
        for row in &plan.starts {
            assert!(!tables.live.contains_key(&row.instance.id), "started twice");
            assert!(
                !tables.history.contains_key(&row.instance.id),
                "started after its end"
            );
            tables.put(row);
        }
        for row in plan.updates.iter().chain(&plan.ends) {
            assert_eq!(
                tables.live[&row.instance.id].version, row.version,
                "version"
            );
        }
        for row in &plan.updates {
            tables.put(row);
        }
        for row in &plan.ends {
            let gone = tables.live.remove(&row.instance.id).unwrap();
            tables.columns.remove(&row.instance.id);
            let ended = EndedRow {
                instance: row.instance.clone(),
                start_hash: gone.start_hash,
            };
            tables.history.insert(row.instance.id, ended);
        }
        for row in &plan.actions {
            tables.actions.insert(row.action.action_id, row.clone());
        }
        for row in &plan.settled {
            if let Some(action) = tables.actions.get_mut(&row.action_id) {
                action.verdict = row.verdict.clone();
                action.status_after = Some(row.status_after);
            }
        }
        Ok(())
    }
}

impl Tables {
    fn put(&mut self, row: &SagaRow) {
        let live = LiveRow {
            instance: row.instance.clone(),
            version: row.version + 1,
            start_hash: row.start_hash.clone(),
        };
        self.live.insert(row.instance.id, live);
        let columns = Columns {
            next_due: row.next_due,
            queued: row.queued.clone(),
            has_key_to_itself: row.has_key_to_itself,
        };
        self.columns.insert(row.instance.id, columns);
    }
}

#[async_trait]
impl TimerStore for MemoryStore {
    async fn due_rows(
        &self,
        home_partitions: &[i32],
        ahead: TimeDelta,
    ) -> Result<(Timestamp, Vec<DueRow>), TimerStoreError> {
        let mut tables = self.tables();
        let until = tables.now + ahead;
        let rows = tables.columns.iter().filter_map(|(id, columns)| {
            let home_partition = tables.live[id].instance.home_partition;
            let next_due = columns.next_due.filter(|due| *due < until)?;
            home_partitions.contains(&home_partition).then_some(DueRow {
                id: *id,
                home_partition,
                next_due,
            })
        });
        let rows: Vec<DueRow> = rows.collect();
        tables.reads.rescans += 1;
        tables.reads.due_rows += rows.len();
        Ok((tables.now, rows))
    }

    async fn queued_rows(
        &self,
        home_partitions: &[i32],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<QueuedPage, TimerStoreError> {
        let mut tables = self.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = QueuedPage::default();
        for (id, columns) in tables.columns.range((from, Bound::Unbounded)).take(limit) {
            page.last = Some(*id);
            let home_partition = tables.live[id].instance.home_partition;
            if !columns.queued.is_empty() && home_partitions.contains(&home_partition) {
                page.rows.push(QueuedRow {
                    id: *id,
                    home_partition,
                    next_due: columns.next_due,
                    queued: columns.queued.clone(),
                });
            }
        }
        tables.reads.queued_rows += page.rows.len();
        Ok(page)
    }

    async fn live(&self, sagas: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError> {
        let mut tables = self.tables();
        tables.reads.states += sagas.len();
        let found = sagas.iter().filter_map(|id| tables.live.get(id));
        Ok(found.map(|row| row.instance.clone()).collect())
    }
}
