//! A store in memory, with the same promises: a batch is written whole or not at all, and counts what it changes.

use crate::engine::saga_store::{
    ActionRow, EndedRow, LiveRow, Loaded, Plan, SagaBatch, SagaRow, SagaStore,
};
use async_trait::async_trait;
use saga_core::{
    definition::{DefinitionHash, SagaDefinition},
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
};
use saga_messaging::rule::BatchError;
use std::{
    collections::BTreeMap,
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
    failing_commits: u32,
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
impl SagaStore for MemoryStore {
    type Batch = MemoryBatch;

    async fn begin(&self) -> Result<MemoryBatch, BatchError> {
        Ok(MemoryBatch {
            tables: Arc::clone(&self.tables),
        })
    }
}

#[async_trait]
impl SagaBatch for MemoryBatch {
    async fn load(&mut self, sagas: &[SagaId], actions: &[Uuid]) -> Result<Loaded, BatchError> {
        let tables = self.tables.lock().unwrap();
        Ok(Loaded {
            now: tables.now,
            starts_from: None,
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

    async fn definition(
        &mut self,
        _hash: &DefinitionHash,
    ) -> Result<Option<SagaDefinition>, BatchError> {
        Ok(None)
    }

    async fn commit(self, plan: &Plan) -> Result<(), BatchError> {
        let mut tables = self.tables.lock().unwrap();
        if tables.failing_commits > 0 {
            tables.failing_commits -= 1;
            return Err(BatchError::Retry("the store is away".into()));
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
    }
}
