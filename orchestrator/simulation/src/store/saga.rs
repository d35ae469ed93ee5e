//! The simulated database of the orchestrator.

use super::database::{Database, LockKey, Session, unavailable};
use crate::{
    checker::history::{Advance, Snapshot},
    faults::Site,
    process::Process,
    world::{World, number_of},
};
use async_trait::async_trait;
use chrono::TimeDelta;
use orchestrator::engine::{
    cache::{AssumedVersions, Cache},
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
use orchestrator::registry::{Catalog, Withdrawn, that_runs};
use saga_core::{
    definition::{DefinitionHash, SagaDefinition},
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
    mutant::{self, Mutant},
};
use saga_messaging::consumer::BatchError;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Bound,
    sync::Arc,
};
use uuid::Uuid;

/// A live saga, with the columns that the timers search.
#[derive(Clone, Debug)]
pub struct Live {
    pub row: LiveRow,
    pub next_due: Option<Timestamp>,
    pub queued: Vec<QueuedCommand>,
    pub has_key_to_itself: bool,
}

#[derive(Default)]
pub struct SagaTables {
    /// Sagas older than this are not started. No saga older than `floor` is live. See the orchestrator's table of
    /// floors.
    pub starts_from: Timestamp,
    pub floor: Timestamp,
    pub live: BTreeMap<SagaId, Live>,
    pub history: BTreeMap<SagaId, EndedRow>,
    pub actions: BTreeMap<Uuid, ActionRow>,
    pub definitions: BTreeMap<DefinitionHash, SagaDefinition>,
    /// Raised by every change of the versions that new sagas take.
    pub generation: i64,
    pub withdrawn: BTreeSet<DefinitionHash>,
}

/// An orchestrator's store, with its cache of live sagas.
#[derive(Clone)]
pub struct SimSagaStore {
    database: Arc<Database<SagaTables>>,
    process: Process,
    cache: Cache,
    recorded: bool,
}

pub struct SimBatch {
    database: Arc<Database<SagaTables>>,
    session: Session,
    cache: Cache,
    unread: AssumedVersions,
    recorded: bool,
}

impl SimSagaStore {
    pub fn new(database: &Arc<Database<SagaTables>>, process: &Process) -> Self {
        Self {
            database: Arc::clone(database),
            process: process.clone(),
            cache: Cache::default(),
            recorded: true,
        }
    }

    /// Returns a store whose batches are not recorded in the run's history.
    pub fn unrecorded(self) -> Self {
        Self {
            recorded: false,
            ..self
        }
    }
}

/// Returns the business key of a saga that must be the only live one with it.
fn key_of(instance: &SagaInstance, has_key_to_itself: bool) -> Option<BusinessKeyOf> {
    let key = instance
        .business_key
        .clone()
        .filter(|_| has_key_to_itself)?;
    Some((instance.definition.clone(), key))
}

fn row_lock(saga: SagaId) -> LockKey {
    ("saga", saga.to_string())
}

#[async_trait]
impl DefinitionStore for SimSagaStore {
    async fn catalog(&self) -> Result<Catalog, CatalogError> {
        let unreadable = |error: BatchError| CatalogError(Box::new(error));
        self.database
            .round_trip(&self.process)
            .await
            .map_err(unreadable)?;
        Ok(self.database.tables().catalog())
    }
}

#[async_trait]
impl SagaStore for SimSagaStore {
    type Batch = SimBatch;

    async fn begin(&self) -> Result<SimBatch, BatchError> {
        let session = self.database.begin(&self.process).await?;
        Ok(SimBatch {
            database: Arc::clone(&self.database),
            session,
            cache: self.cache.clone(),
            unread: AssumedVersions::default(),
            recorded: self.recorded,
        })
    }

    fn forget(&self) {
        self.cache.forget();
    }
}

impl SimBatch {
    /// Inserts the starts, waiting for rivals that insert the same; then checks history in a statement of its own.
    async fn start(&self, plan: &Plan) -> Result<(), BatchError> {
        let starts = plan.starts.as_slice();
        let mut keys = BTreeSet::new();
        for row in starts {
            self.session.lock(row_lock(row.instance.id)).await?;
            if self.database.tables().live.contains_key(&row.instance.id) {
                return Err(unavailable("a rival has started it"));
            }
            if let Some(key) = key_of(&row.instance, row.has_key_to_itself) {
                let lock = format!("{} {}", key.0, key.1);
                self.session.lock(("saga_unique_key", lock)).await?;
                let is_held = self.database.tables().holder(&key).is_some();
                if is_held || !keys.insert(key) {
                    return Err(unavailable("a rival has its business key"));
                }
            }
        }
        if starts.is_empty() {
            return Ok(());
        }
        let floor_ms = self.database.tables().starts_from.timestamp_millis();
        let too_old = |row: &SagaRow| row.instance.id.created_at_ms() < Some(floor_ms);
        if starts.iter().any(too_old) && !mutant::on(Mutant::IgnoreFloorOfStarts) {
            return Err(unavailable("the floor of starts has risen above it"));
        }
        let current = self.database.tables().generation == plan.generation;
        if !current && !mutant::on(Mutant::TrustDefinitions) {
            return Err(unavailable("definitions have been registered or withdrawn"));
        }
        for row in starts.iter().filter(|_| self.recorded) {
            self.database
                .tables()
                .observe_version(&self.database.world, row);
        }
        if mutant::on(Mutant::ForgetHistory) {
            return Ok(());
        }
        self.database.round_trip(self.session.process()).await?;
        let tables = self.database.tables();
        if starts
            .iter()
            .any(|row| tables.history.contains_key(&row.instance.id))
        {
            return Err(unavailable("a rival has ended it"));
        }
        Ok(())
    }

    /// Checks that the rows that a plan changes still have the versions that it was decided from, and also the cached
    /// rows that it leaves unmodified.
    async fn match_versions(
        &self,
        plan: &Plan,
        unmodified: &BTreeMap<SagaId, i64>,
    ) -> Result<(), BatchError> {
        if mutant::on(Mutant::DropVersionCheck) {
            return Ok(());
        }
        let started: BTreeSet<SagaId> = plan.starts.iter().map(|row| row.instance.id).collect();
        for row in plan.updates.iter().chain(&plan.ends) {
            let id = row.instance.id;
            self.session.lock(row_lock(id)).await?;
            let version = self
                .database
                .tables()
                .live
                .get(&id)
                .map(|live| live.row.version);
            let planned = version == Some(row.version) || started.contains(&id);
            if !planned {
                return Err(unavailable("a rival has moved it"));
            }
        }
        let tables = self.database.tables();
        for (id, version) in unmodified {
            if tables.live.get(id).map(|live| live.row.version) != Some(*version) {
                return Err(unavailable("a rival has moved what nobody has read"));
            }
        }
        Ok(())
    }

    /// Fails if another process has decided one of the actions.
    async fn decide(&self, actions: &[ActionRow]) -> Result<(), BatchError> {
        for row in actions {
            let id = row.action.action_id;
            self.session
                .lock(("operator_action", id.to_string()))
                .await?;
            if self.database.tables().actions.contains_key(&id) {
                return Err(unavailable("a rival has decided it"));
            }
        }
        Ok(())
    }

    /// Reads a snapshot of the actions, then one of the sagas.
    async fn read(
        &self,
        sagas: &[SagaId],
        actions: &[Uuid],
        keys: &BTreeSet<BusinessKeyOf>,
    ) -> Result<Loaded, BatchError> {
        let decided = self.decided(actions).await?;
        self.database.round_trip(self.session.process()).await?;
        self.session.check()?;
        let tables = self.database.tables();
        let live = sagas.iter().filter_map(|id| tables.live.get(id));
        let ended = sagas.iter().filter_map(|id| tables.history.get(id));
        Ok(Loaded {
            starts_from: Some(tables.starts_from),
            generation: Some(tables.generation),
            holders: keys
                .iter()
                .filter_map(|key| Some((key.clone(), tables.holder(key)?)))
                .collect(),
            live: live.map(|live| live.row.clone()).collect(),
            ended: ended.cloned().collect(),
            decided,
            ..Loaded::default()
        })
    }

    async fn decided(&self, actions: &[Uuid]) -> Result<HashSet<Uuid>, BatchError> {
        if actions.is_empty() {
            return Ok(HashSet::new());
        }
        self.database.round_trip(self.session.process()).await?;
        self.session.check()?;
        let tables = self.database.tables();
        let decided = actions.iter().filter(|id| tables.actions.contains_key(id));
        Ok(decided.copied().collect())
    }

    fn apply(&self, plan: &Plan) {
        let who = self.session.process().name().to_owned();
        let world = Arc::clone(&self.database.world);
        let mut tables = self.database.tables();
        for row in plan.starts.iter().chain(&plan.updates) {
            tables.put(row);
        }
        for row in &plan.ends {
            tables.end(row);
        }
        for row in &plan.actions {
            tables.actions.insert(row.action.action_id, row.clone());
        }
        for settled in &plan.settled {
            if let Some(row) = tables.actions.get_mut(&settled.action_id) {
                row.verdict = settled.verdict.clone();
                row.status_after = Some(settled.status_after);
            }
        }
        if !self.recorded {
            return;
        }
        let mut history = world.history();
        for row in plan.starts.iter().chain(&plan.updates).chain(&plan.ends) {
            let id = row.instance.id;
            history.advances.push(Advance {
                saga: id,
                from_version: row.version,
            });
            history.snapshots.push(Snapshot {
                at: world.elapsed(),
                instance: row.instance.clone(),
                live: tables.live.contains_key(&id),
                ended: tables.history.contains_key(&id),
            });
            note_commit(&world, &who, row);
        }
    }
}

fn note_commit(world: &World, who: &str, row: &SagaRow) {
    let last = row.instance.log.last();
    let told: Vec<String> = last
        .iter()
        .flat_map(|entry| {
            entry
                .events
                .iter()
                .map(|event| event.kind.name().to_owned())
        })
        .collect();
    world.note(
        who,
        format_args!(
            "COMMIT saga {} v{} {}: {}",
            number_of(row.instance.id),
            row.version,
            row.instance.status.as_str(),
            told.join(", ")
        ),
    );
}

#[async_trait]
impl SagaBatch for SimBatch {
    async fn load(
        &mut self,
        sagas: &[SagaId],
        actions: &[Uuid],
        keys: &BTreeSet<BusinessKeyOf>,
    ) -> Result<Loaded, BatchError> {
        let process = self.session.process().clone();
        let known = self.cache.split(sagas);
        self.unread = known.unread();
        let mut loaded = if known.unknown.is_empty() && actions.is_empty() {
            Loaded::default()
        } else {
            self.read(&known.unknown, actions, keys).await?
        };
        let now = self.database.now();
        loaded.now = Timestamp::from_timestamp_millis(now.timestamp_millis()).unwrap_or(now);
        known.join(&mut loaded);
        process.gate(Site::CrashAfterLoad).await;
        Ok(loaded)
    }

    async fn commit(mut self, plan: &Plan) -> Result<(), BatchError> {
        let unmodified = std::mem::take(&mut self.unread).unmodified(plan);
        if plan.is_empty() && unmodified.is_empty() {
            return Ok(());
        }
        self.database.round_trip(self.session.process()).await?;
        // With locks on other sagas, the stall would delay the rival instead.
        if !plan.starts.is_empty() && plan.updates.is_empty() && plan.ends.is_empty() {
            self.session.process().hold(Site::StartHeld).await;
        }
        self.start(plan).await?;
        self.match_versions(plan, &unmodified).await?;
        self.decide(&plan.actions).await?;
        self.database.before_commit(&self.session).await?;
        self.apply(plan);
        let Self {
            database,
            session,
            cache,
            ..
        } = self;
        database.after_commit(session).await?;
        cache.put(plan);
        Ok(())
    }
}

impl SagaTables {
    /// Returns the catalog that a process reads.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::of(self.generation, self.definitions.values().cloned());
        for one in &mut catalog.definitions {
            one.withdrawn = self.withdrawn.contains(&one.hash).then(|| Withdrawn {
                at: one.registered_at,
                actor: "somebody".to_owned(),
                reason: "because".to_owned(),
            });
        }
        catalog
    }

    /// Registers a definition.
    pub fn register(&mut self, definition: SagaDefinition) {
        self.definitions.insert(definition.hash.clone(), definition);
        self.generation += 1;
    }

    /// Withdraws a version, or restores it if it is withdrawn.
    pub fn withdraw_or_restore(&mut self, hash: &DefinitionHash) {
        if !self.withdrawn.remove(hash) {
            self.withdrawn.insert(hash.clone());
        }
        self.generation += 1;
    }

    fn holder(&self, key: &BusinessKeyOf) -> Option<SagaId> {
        let own =
            |live: &&Live| key_of(&live.row.instance, live.has_key_to_itself).as_ref() == Some(key);
        let live = self.live.values().find(own)?;
        Some(live.row.instance.id)
    }

    /// Checks that a new saga takes the version that runs when the statement of its start reads the definitions. What is
    /// registered between that statement and the commit comes after the start.
    fn observe_version(&self, world: &World, row: &SagaRow) {
        let catalog = self.catalog();
        let name = row.instance.definition.as_str();
        let runs = catalog.by_name().remove(name).and_then(that_runs);
        let taken = &row.instance.definition_hash;
        if runs.map(|one| &one.hash) != Some(taken) {
            world.observe(
                "new_sagas_take_what_runs",
                format!(
                    "saga {} of '{name}' takes version {}, and {:?} runs",
                    number_of(row.instance.id),
                    row.instance.definition_version,
                    runs.map(|one| one.version)
                ),
            );
        }
    }

    /// Inserts a live saga that no engine has started.
    #[cfg(test)]
    pub fn insert_live(
        &mut self,
        instance: SagaInstance,
        next_due: Option<Timestamp>,
        queued: Vec<QueuedCommand>,
    ) {
        let row = LiveRow {
            version: 1,
            start_hash: Vec::new(),
            instance,
        };
        let live = Live {
            row,
            next_due,
            queued,
            has_key_to_itself: false,
        };
        self.live.insert(live.row.instance.id, live);
    }

    fn put(&mut self, row: &SagaRow) {
        let live = Live {
            row: LiveRow {
                instance: row.instance.clone(),
                version: row.version + 1,
                start_hash: row.start_hash.clone(),
            },
            next_due: row.next_due,
            queued: row.queued.clone(),
            has_key_to_itself: row.has_key_to_itself,
        };
        self.live.insert(row.instance.id, live);
    }

    fn end(&mut self, row: &SagaRow) {
        self.live.remove(&row.instance.id);
        let ended = EndedRow {
            instance: row.instance.clone(),
            start_hash: row.start_hash.clone(),
        };
        self.history.insert(row.instance.id, ended);
    }
}

#[async_trait]
impl TimerStore for SimSagaStore {
    async fn due_rows(
        &self,
        home_partitions: &[i32],
        ahead: TimeDelta,
    ) -> Result<(Timestamp, Vec<DueRow>), TimerStoreError> {
        self.database
            .round_trip(&self.process)
            .await
            .map_err(unreadable)?;
        let now = self.database.now();
        self.process.latency().await;
        let tables = self.database.tables();
        let rows = tables.live.values().filter_map(|live| {
            let instance = &live.row.instance;
            let next_due = live.next_due.filter(|due| *due < now + ahead)?;
            home_partitions
                .contains(&instance.home_partition)
                .then_some(DueRow {
                    id: instance.id,
                    home_partition: instance.home_partition,
                    next_due,
                })
        });
        Ok((now, rows.collect()))
    }

    async fn queued_rows(
        &self,
        home_partitions: &[i32],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<QueuedPage, TimerStoreError> {
        self.database
            .round_trip(&self.process)
            .await
            .map_err(unreadable)?;
        let tables = self.database.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = tables.live.range((from, Bound::Unbounded)).take(limit);
        let mut found = QueuedPage::default();
        for (id, live) in page {
            found.last = Some(*id);
            let home_partition = live.row.instance.home_partition;
            if !live.queued.is_empty() && home_partitions.contains(&home_partition) {
                found.rows.push(QueuedRow {
                    id: *id,
                    home_partition,
                    next_due: live.next_due,
                    queued: live.queued.clone(),
                });
            }
        }
        Ok(found)
    }

    async fn live(&self, sagas: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError> {
        self.database
            .round_trip(&self.process)
            .await
            .map_err(unreadable)?;
        let tables = self.database.tables();
        let found = sagas.iter().filter_map(|saga| tables.live.get(saga));
        Ok(found.map(|live| live.row.instance.clone()).collect())
    }
}

fn unreadable(error: BatchError) -> TimerStoreError {
    TimerStoreError(Box::new(error))
}
