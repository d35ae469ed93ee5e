//! A participant's tables, and a transaction's view of them.

use super::{
    database::{Database, LockKey, Session, unavailable},
    outbox::row_lock,
};
use crate::{checker::history::Accepted, world::number_of};
use async_trait::async_trait;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
    message::{Direction, Outcome},
    mutant::{self, Mutant},
};
use saga_messaging::{consumer::BatchError, outbox::storage::OutboxTx};
use saga_participant::storage::{BarrierRow, Intent, RowKey, SavedReply, Savepoints};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// An effect of a participant, forward or compensating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub saga: SagaId,
    pub step: String,
    /// `Forward` or `Compensation`.
    pub direction: Direction,
    /// Simulated time since the start of the run.
    pub at: Duration,
}

/// An order in the order service's table.
#[derive(Clone, Debug)]
pub struct OrderRow {
    pub accepted_at: Timestamp,
    pub accepted: Accepted,
}

#[derive(Clone, Debug)]
pub struct OutboxRow {
    pub count: usize,
    pub records: Vec<u8>,
    pub claimed_until: Timestamp,
}

/// The database of a participant. The order service's database has orders and an outbox, too.
#[derive(Default)]
pub struct ParticipantTables {
    pub barrier: BTreeMap<RowKey, BarrierRow>,
    pub intents: BTreeMap<RowKey, Intent>,
    pub effects: Vec<Effect>,
    pub own_floor_ms: i64,
    pub seen_floor_ms: i64,
    pub orders: BTreeMap<SagaId, OrderRow>,
    pub outbox: BTreeMap<i64, OutboxRow>,
    pub outbox_ids: i64,
}

#[cfg(test)]
impl ParticipantTables {
    /// Inserts an order that no intake has accepted.
    pub fn insert_order(&mut self, saga: SagaId, accepted_at: Timestamp, accepted: Accepted) {
        let order = OrderRow {
            accepted_at,
            accepted,
        };
        self.orders.insert(saga, order);
    }
}

/// A transaction with its uncommitted writes. Handlers write through it.
pub struct SimConnection {
    pub(super) database: Arc<Database<ParticipantTables>>,
    pub(super) session: Session,
    barrier: BTreeMap<RowKey, Option<BarrierRow>>,
    intents: BTreeMap<RowKey, Option<Intent>>,
    seen_floor_ms: Option<i64>,
    effects: Vec<Effect>,
    savepoint: Option<usize>,
    orders: BTreeMap<SagaId, OrderRow>,
    outbox: BTreeMap<i64, OutboxRow>,
    sent: BTreeSet<i64>,
}

pub(super) fn key_text(key: &RowKey) -> String {
    format!("{}/{}/{}", key.saga_id, key.step, key.direction)
}

pub(super) fn inbox_lock(key: &RowKey) -> LockKey {
    ("inbox", key_text(key))
}

pub(super) fn intent_lock(key: &RowKey) -> LockKey {
    ("intent", key_text(key))
}

impl SimConnection {
    pub(super) fn new(database: Arc<Database<ParticipantTables>>, session: Session) -> Self {
        Self {
            database,
            session,
            barrier: BTreeMap::new(),
            intents: BTreeMap::new(),
            seen_floor_ms: None,
            effects: Vec::new(),
            savepoint: None,
            orders: BTreeMap::new(),
            outbox: BTreeMap::new(),
            sent: BTreeSet::new(),
        }
    }

    /// Simulates one statement's round trip.
    pub(super) async fn statement(&self) -> Result<(), BatchError> {
        self.database.round_trip(self.session.process()).await?;
        self.session.check()
    }

    #[cfg(test)]
    pub fn now(&self) -> Timestamp {
        self.database.now()
    }

    /// Records the effect of a command, forward or compensating.
    pub fn record(&mut self, saga: SagaId, step: &str, direction: Direction) {
        self.effects.push(Effect {
            saga,
            step: step.to_owned(),
            direction,
            at: self.database.world.elapsed(),
        });
    }

    /// Locks a row that commands of different sagas share.
    pub async fn lock_shared(&self, row: u64) -> Result<(), BatchError> {
        self.statement().await?;
        self.session.lock(("shared", row.to_string())).await
    }

    /// Accepts an order in this transaction. Returns false if the order exists already.
    pub async fn accept(&mut self, saga: SagaId, accepted: &Accepted) -> Result<bool, BatchError> {
        self.statement().await?;
        self.session.lock(("order", saga.to_string())).await?;
        if self.database.tables().orders.contains_key(&saga) {
            return Ok(false);
        }
        let accepted_at = self.database.now();
        let accepted = accepted.clone();
        self.orders.insert(
            saga,
            OrderRow {
                accepted_at,
                accepted,
            },
        );
        Ok(true)
    }

    /// Writes the barrier row of the step that the starter has done itself.
    pub async fn record_started(&mut self, saga: SagaId, step: &str) -> Result<(), BatchError> {
        self.statement().await?;
        let key = RowKey {
            saga_id: saga,
            step: step.to_owned(),
            direction: Direction::Forward,
        };
        self.has_room_for(&key)?;
        self.session.lock(inbox_lock(&key)).await?;
        let entry = BarrierRow {
            mark: Mark::Done,
            reply: Some(SavedReply {
                reply_type: format!("{step}.done"),
                outcome: Outcome::Success,
                payload: serde_json::Value::Null,
            }),
            handled_at: self.database.now(),
        };
        if !mutant::on(Mutant::ForgetStarterRecord) {
            self.set_barrier(&key, Some(entry));
        }
        self.record(saga, step, Direction::Forward);
        Ok(())
    }

    pub(super) fn barrier_row(&self, key: &RowKey) -> Option<BarrierRow> {
        match self.barrier.get(key) {
            Some(own) => own.clone(),
            None => self.database.tables().barrier.get(key).cloned(),
        }
    }

    /// Returns the rows of these sagas, as this transaction sees them.
    pub(super) fn barrier_rows(&self, sagas: &[SagaId]) -> Vec<(RowKey, BarrierRow)> {
        let tables = self.database.tables();
        let stored = tables.barrier.keys().chain(self.barrier.keys());
        let keys: BTreeSet<&RowKey> = stored.filter(|key| sagas.contains(&key.saga_id)).collect();
        let row = |key: &&RowKey| match self.barrier.get(*key) {
            Some(own) => own.clone(),
            None => tables.barrier.get(*key).cloned(),
        };
        keys.iter()
            .filter_map(|key| Some(((*key).clone(), row(key)?)))
            .collect()
    }

    pub(super) fn set_barrier(&mut self, key: &RowKey, entry: Option<BarrierRow>) {
        self.barrier.insert(key.clone(), entry);
    }

    pub(super) fn intent(&self, key: &RowKey) -> Option<Intent> {
        match self.intents.get(key) {
            Some(own) => own.clone(),
            None => self.database.tables().intents.get(key).cloned(),
        }
    }

    pub(super) fn intent_keys(&self, sagas: &[SagaId]) -> Vec<RowKey> {
        let tables = self.database.tables();
        let keys = tables.intents.keys().chain(self.intents.keys());
        let keys: BTreeSet<&RowKey> = keys.filter(|key| sagas.contains(&key.saga_id)).collect();
        keys.into_iter().cloned().collect()
    }

    pub(super) fn set_intent(&mut self, key: &RowKey, intent: Option<Intent>) {
        self.intents.insert(key.clone(), intent);
    }

    pub(super) fn raise_seen(&mut self, floor_ms: i64) {
        self.seen_floor_ms = self.seen_floor_ms.max(Some(floor_ms));
    }

    /// Fails for a saga that began below the floor, because its partition has been dropped.
    pub(super) fn has_room_for(&self, key: &RowKey) -> Result<(), BatchError> {
        let began_ms = key.saga_id.created_at_ms().unwrap_or_default();
        if began_ms < self.database.tables().own_floor_ms {
            return Err(unavailable("there is no partition for it"));
        }
        Ok(())
    }

    /// Makes all writes of the transaction visible at once.
    fn apply(&mut self) {
        let world = Arc::clone(&self.database.world);
        let who = self.session.process().name().to_owned();
        let mut tables = self.database.tables();
        for (key, entry) in std::mem::take(&mut self.barrier) {
            match entry {
                Some(entry) => tables.barrier.insert(key, entry),
                None => tables.barrier.remove(&key),
            };
        }
        for (key, intent) in std::mem::take(&mut self.intents) {
            match intent {
                Some(intent) => tables.intents.insert(key, intent),
                None => tables.intents.remove(&key),
            };
        }
        if let Some(floor) = self.seen_floor_ms {
            tables.seen_floor_ms = tables.seen_floor_ms.max(floor);
        }
        for id in &self.sent {
            tables.outbox.remove(id);
        }
        tables.outbox.append(&mut self.outbox);
        for (saga, order) in std::mem::take(&mut self.orders) {
            world
                .history()
                .accepted
                .insert(saga, order.accepted.clone());
            tables.orders.insert(saga, order);
        }
        for mut effect in std::mem::take(&mut self.effects) {
            effect.at = world.elapsed();
            world.note(
                &who,
                format_args!(
                    "EFFECT saga {} {} {}",
                    number_of(effect.saga),
                    effect.step,
                    effect.direction
                ),
            );
            world.history().effects.push(effect.clone());
            tables.effects.push(effect);
        }
    }

    pub async fn commit(mut self) -> Result<(), BatchError> {
        self.database.before_commit(&self.session).await?;
        self.apply();
        let Self {
            database, session, ..
        } = self;
        database.after_commit(session).await
    }
}

#[async_trait]
impl Savepoints for SimConnection {
    async fn savepoint(&mut self) -> Result<(), BatchError> {
        self.savepoint = Some(self.effects.len());
        Ok(())
    }

    async fn release_savepoint(&mut self) -> Result<(), BatchError> {
        self.savepoint = None;
        Ok(())
    }

    async fn roll_back_to_savepoint(&mut self) -> Result<(), BatchError> {
        if let Some(kept) = self.savepoint.take() {
            self.effects.truncate(kept);
        }
        Ok(())
    }
}

#[async_trait]
impl OutboxTx for SimConnection {
    async fn replace(
        &mut self,
        settled: &[i64],
        count: usize,
        records: &[u8],
        lease: Duration,
    ) -> Result<i64, BatchError> {
        self.statement().await?;
        for id in settled {
            self.session.lock(row_lock(*id)).await?;
        }
        self.sent.extend(settled);
        let id = {
            let mut tables = self.database.tables();
            tables.outbox_ids += 1;
            tables.outbox_ids
        };
        let row = OutboxRow {
            count,
            records: records.to_vec(),
            claimed_until: self.database.now() + lease,
        };
        self.outbox.insert(id, row);
        Ok(id)
    }
}
