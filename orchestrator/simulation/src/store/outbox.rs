//! The outbox table, as the relay uses it.

use super::{
    connection::ParticipantTables,
    database::{Database, LockKey},
};
use crate::process::Process;
use async_trait::async_trait;
use saga_messaging::{consumer::BatchError, outbox::storage::OutboxStore};
use std::{sync::Arc, time::Duration};

#[derive(Clone)]
pub struct SimOutbox {
    database: Arc<Database<ParticipantTables>>,
    process: Process,
}

impl SimOutbox {
    pub fn new(database: &Arc<Database<ParticipantTables>>, process: &Process) -> Self {
        Self {
            database: Arc::clone(database),
            process: process.clone(),
        }
    }

    /// Begins a transaction that stages messages.
    #[cfg(test)]
    pub async fn begin(&self) -> Result<super::SimConnection, BatchError> {
        let session = self.database.begin(&self.process).await?;
        let database = Arc::clone(&self.database);
        Ok(super::SimConnection::new(database, session))
    }
}

/// Returns the lock that a transaction takes to remove or claim a row.
pub(super) fn row_lock(id: i64) -> LockKey {
    ("outbox", id.to_string())
}

#[async_trait]
impl OutboxStore for SimOutbox {
    async fn remove(&self, ids: &[i64]) -> Result<(), BatchError> {
        let session = self.database.begin(&self.process).await?;
        for id in ids {
            session.lock(row_lock(*id)).await?;
        }
        self.database.before_commit(&session).await?;
        for id in ids {
            self.database.tables().outbox.remove(id);
        }
        self.database.after_commit(session).await
    }

    async fn claim(
        &self,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<(i64, Vec<u8>)>, BatchError> {
        let session = self.database.begin(&self.process).await?;
        self.database.before_commit(&session).await?;
        let now = self.database.now();
        let claimed: Vec<(i64, Vec<u8>)> = {
            let mut tables = self.database.tables();
            let due = tables.outbox.iter_mut().filter(|(id, row)| {
                row.claimed_until < now && session.try_lock(&row_lock(**id)).unwrap_or_default()
            });
            due.take(limit)
                .map(|(id, row)| {
                    row.claimed_until = now + lease;
                    (*id, row.records.clone())
                })
                .collect()
        };
        self.database.after_commit(session).await?;
        Ok(claimed)
    }

    async fn abandoned(&self) -> Result<u64, BatchError> {
        self.database.round_trip(&self.process).await?;
        let now = self.database.now();
        let tables = self.database.tables();
        let due = tables.outbox.values().filter(|row| row.claimed_until < now);
        Ok(due.map(|row| row.count as u64).sum())
    }
}
