//! A participant's store: the barrier, the intents and the floors.

use super::{
    connection::{ParticipantTables, SimConnection, inbox_lock, intent_lock},
    database::Database,
};
use crate::{faults::Site, process::Process};
use async_trait::async_trait;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
};
use saga_messaging::consumer::BatchError;
use saga_participant::storage::{
    BarrierRow, BarrierSnapshot, ClaimLimits, Claimed, Intent, IntentState, ParticipantStore,
    ParticipantTx, PublishedIntent, RowKey, TxContext, lock_timeout,
};
use std::{sync::Arc, time::Duration};

/// A participant's store in one process.
#[derive(Clone)]
pub struct SimParticipantStore {
    database: Arc<Database<ParticipantTables>>,
    process: Process,
}

pub struct SimParticipantTx {
    connection: SimConnection,
}

impl SimParticipantStore {
    pub fn new(database: &Arc<Database<ParticipantTables>>, process: &Process) -> Self {
        Self {
            database: Arc::clone(database),
            process: process.clone(),
        }
    }

    #[cfg(test)]
    pub fn database(&self) -> &Database<ParticipantTables> {
        &self.database
    }

    /// Begins a transaction for the order service's intake, which is not a participant.
    pub async fn begin(&self) -> Result<SimConnection, BatchError> {
        let session = self.database.begin(&self.process).await?;
        Ok(SimConnection::new(Arc::clone(&self.database), session))
    }
}

#[async_trait]
impl ParticipantStore for SimParticipantStore {
    type Connection = SimConnection;
    type Tx = SimParticipantTx;

    async fn open(&self, statement_timeout: Duration) -> Result<SimParticipantTx, BatchError> {
        let mut connection = self.begin().await?;
        let patience = lock_timeout(statement_timeout);
        connection.session.bound_waiting(patience);
        Ok(SimParticipantTx { connection })
    }

    async fn now(&self) -> Result<Timestamp, BatchError> {
        self.database.round_trip(&self.process).await?;
        Ok(self.database.now())
    }

    async fn claim(&self, limits: ClaimLimits) -> Result<Claimed, BatchError> {
        let session = self.database.begin(&self.process).await?;
        self.database.before_commit(&session).await?;
        let now = self.database.now();
        let mut claimed = Claimed {
            now,
            calls: Vec::new(),
            replies: Vec::new(),
            open: 0,
            expired: 0,
        };
        {
            let mut tables = self.database.tables();
            let mut due: Vec<(Timestamp, RowKey)> = tables
                .intents
                .iter()
                .filter(|(_, intent)| intent.lease_until < now)
                .map(|(key, intent)| (intent.lease_until, key.clone()))
                .collect();
            due.sort();
            for (_, key) in due {
                let Some(intent) = tables.intents.get_mut(&key) else {
                    continue;
                };
                let (list, limit) = if intent.state == IntentState::Open {
                    (&mut claimed.calls, limits.calls)
                } else if intent.replies.is_some() {
                    (&mut claimed.replies, limits.replies)
                } else {
                    continue;
                };
                if list.len() < limit && session.try_lock(&intent_lock(&key))? {
                    intent.lease_until = now + limits.lease;
                    list.push((key, intent.clone()));
                }
            }
            for intent in tables.intents.values() {
                let open = intent.state == IntentState::Open || intent.replies.is_some();
                claimed.open += i64::from(open);
                claimed.expired += i64::from(intent.state == IntentState::Expired);
            }
        }
        self.database.after_commit(session).await?;
        Ok(claimed)
    }
}

#[async_trait]
impl ParticipantTx for SimParticipantTx {
    type Connection = SimConnection;

    fn connection(&mut self) -> &mut SimConnection {
        &mut self.connection
    }

    async fn raise_seen_floor(&mut self, floor_ms: i64) -> Result<(), BatchError> {
        self.connection.statement().await?;
        self.connection
            .session
            .lock(("saga_floor", String::new()))
            .await?;
        self.connection.raise_seen(floor_ms);
        Ok(())
    }

    async fn lock_intents(
        &mut self,
        sagas: &[SagaId],
    ) -> Result<Vec<(RowKey, Intent)>, BatchError> {
        self.connection.statement().await?;
        let mut rows = Vec::new();
        for key in self.connection.intent_keys(sagas) {
            self.connection.session.lock(intent_lock(&key)).await?;
            // An intent that was removed while its lock was awaited is left out.
            rows.extend(self.connection.intent(&key).map(|intent| (key, intent)));
        }
        Ok(rows)
    }

    async fn write_intents(&mut self, rows: &[(&RowKey, &Intent)]) -> Result<(), BatchError> {
        self.connection.statement().await?;
        for (key, intent) in rows {
            self.connection.session.lock(intent_lock(key)).await?;
            self.connection.set_intent(key, Some((*intent).clone()));
        }
        Ok(())
    }

    async fn remove_intents(&mut self, rows: &[&RowKey]) -> Result<(), BatchError> {
        self.connection.statement().await?;
        for key in rows {
            self.connection.session.lock(intent_lock(key)).await?;
            self.connection.set_intent(key, None);
        }
        Ok(())
    }

    async fn close_intents(&mut self, told: &[PublishedIntent]) -> Result<(), BatchError> {
        self.connection.statement().await?;
        for told in told {
            self.connection.session.lock(intent_lock(&told.key)).await?;
            let Some(mut intent) = self.connection.intent(&told.key) else {
                continue;
            };
            if intent.generation != told.generation {
                continue;
            }
            match (intent.state, told.is_final) {
                (IntentState::Settled, true) => self.connection.set_intent(&told.key, None),
                (IntentState::Released | IntentState::Expired, false) => {
                    intent.replies = None;
                    intent.cancel = None;
                    intent.resolve = None;
                    self.connection.set_intent(&told.key, Some(intent));
                }
                (IntentState::Settled, false)
                | (IntentState::Released | IntentState::Expired, true)
                | (IntentState::Open, _) => {}
            }
        }
        Ok(())
    }

    async fn read_barrier(&mut self, sagas: &[SagaId]) -> Result<BarrierSnapshot, BatchError> {
        self.connection.statement().await?;
        let rows = self.connection.barrier_rows(sagas);
        let terms = {
            let database = &self.connection.database;
            let tables = database.tables();
            TxContext {
                now: database.now(),
                own_floor_ms: tables.own_floor_ms,
                seen_floor_ms: tables.seen_floor_ms,
            }
        };
        let process = self.connection.session.process().clone();
        process.gate(Site::CrashAfterLoad).await;
        Ok(BarrierSnapshot { terms, rows })
    }

    async fn insert_barrier(&mut self, rows: &[(&RowKey, &BarrierRow)]) -> Result<u64, BatchError> {
        self.connection.statement().await?;
        let mut inserted = 0;
        for (key, entry) in rows {
            self.connection.has_room_for(key)?;
            self.connection.session.lock(inbox_lock(key)).await?;
            if self.connection.barrier_row(key).is_none() {
                self.connection.set_barrier(key, Some((*entry).clone()));
                inserted += 1;
            }
        }
        Ok(inserted)
    }

    async fn settle_barrier(&mut self, rows: &[(&RowKey, &BarrierRow)]) -> Result<u64, BatchError> {
        self.connection.statement().await?;
        let mut settled = 0;
        for (key, entry) in rows {
            self.connection.session.lock(inbox_lock(key)).await?;
            if self.is_pending(key) {
                self.connection.set_barrier(key, Some((*entry).clone()));
                settled += 1;
            }
        }
        Ok(settled)
    }

    async fn release_barrier(&mut self, rows: &[&RowKey]) -> Result<u64, BatchError> {
        self.connection.statement().await?;
        let mut released = 0;
        for key in rows {
            self.connection.session.lock(inbox_lock(key)).await?;
            if self.is_pending(key) {
                self.connection.set_barrier(key, None);
                released += 1;
            }
        }
        Ok(released)
    }

    async fn commit(self) -> Result<(), BatchError> {
        self.connection.commit().await
    }
}

impl SimParticipantTx {
    fn is_pending(&self, key: &RowKey) -> bool {
        let row = self.connection.barrier_row(key);
        row.is_some_and(|row| row.mark == Mark::Pending)
    }
}
