//! The participant's store on Postgres: a pool is one.

use super::{floor, inbox, intent};
use crate::{
    participant::storage::{
        ClaimLimits, Claimed, Entry, Intent, Looked, ParticipantStore, ParticipantTx, RowKey,
        Savepoints, Told, lock_timeout,
    },
    rule::BatchError,
};
use async_trait::async_trait;
use saga_core::ids::{SagaId, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction, raw_sql};
use std::time::Duration;
use uuid::Uuid;

fn uuids(sagas: &[SagaId]) -> Vec<Uuid> {
    sagas.iter().map(|saga| saga.0).collect()
}

#[async_trait]
impl ParticipantStore for PgPool {
    type Connection = PgConnection;
    type Tx = Transaction<'static, Postgres>;

    /// One round trip: what begins the transaction also bounds it.
    async fn open(&self, statement_timeout: Duration) -> Result<Self::Tx, BatchError> {
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}",
            statement_timeout.as_millis(),
            lock_timeout(statement_timeout).as_millis()
        );
        Ok(self.begin_with(AssertSqlSafe(begin)).await?)
    }

    async fn now(&self) -> Result<Timestamp, BatchError> {
        Ok(floor::now(self).await?)
    }

    async fn claim(&self, limits: ClaimLimits) -> Result<Claimed, BatchError> {
        let mut connection = self.acquire().await?;
        let calls = intent::claim(&mut connection, true, limits.calls, limits.lease).await?;
        let replies = intent::claim(&mut connection, false, limits.replies, limits.lease).await?;
        let (open, expired, now) = intent::count(&mut connection).await?;
        Ok(Claimed {
            now,
            calls,
            replies,
            open,
            expired,
        })
    }
}

#[async_trait]
impl ParticipantTx for Transaction<'static, Postgres> {
    type Connection = PgConnection;

    fn connection(&mut self) -> &mut PgConnection {
        self
    }

    async fn raise_seen_floor(&mut self, floor_ms: i64) -> Result<(), BatchError> {
        Ok(floor::raise_seen(self, floor_ms).await?)
    }

    async fn lock_intents(
        &mut self,
        sagas: &[SagaId],
    ) -> Result<Vec<(RowKey, Intent)>, BatchError> {
        Ok(intent::lock(self, &uuids(sagas)).await?)
    }

    async fn write_intents(&mut self, rows: &[(&RowKey, &Intent)]) -> Result<(), BatchError> {
        Ok(intent::write(self, rows).await?)
    }

    async fn remove_intents(&mut self, rows: &[&RowKey]) -> Result<(), BatchError> {
        Ok(intent::remove(self, rows).await?)
    }

    async fn close_intents(&mut self, told: &[Told]) -> Result<(), BatchError> {
        Ok(intent::close(self, told).await?)
    }

    async fn read_barrier(&mut self, sagas: &[SagaId]) -> Result<Looked, BatchError> {
        Ok(inbox::read(self, &uuids(sagas)).await?)
    }

    async fn insert_barrier(&mut self, rows: &[(&RowKey, &Entry)]) -> Result<u64, BatchError> {
        Ok(inbox::insert(self, rows).await?)
    }

    async fn settle_barrier(&mut self, rows: &[(&RowKey, &Entry)]) -> Result<u64, BatchError> {
        Ok(inbox::settle(self, rows).await?)
    }

    async fn release_barrier(&mut self, rows: &[&RowKey]) -> Result<u64, BatchError> {
        Ok(inbox::release(self, rows).await?)
    }

    async fn commit(self) -> Result<(), BatchError> {
        Ok(Transaction::commit(self).await?)
    }
}

/// Not sqlx's own nested transactions: those end in another type, and a handler's author gets the connection.
#[async_trait]
impl Savepoints for PgConnection {
    async fn savepoint(&mut self) -> Result<(), BatchError> {
        raw_sql("SAVEPOINT command").execute(self).await?;
        Ok(())
    }

    async fn release_savepoint(&mut self) -> Result<(), BatchError> {
        raw_sql("RELEASE SAVEPOINT command").execute(self).await?;
        Ok(())
    }

    async fn roll_back_to_savepoint(&mut self) -> Result<(), BatchError> {
        // Rolling back keeps the savepoint, and each one kept is a level deeper.
        raw_sql("ROLLBACK TO SAVEPOINT command; RELEASE SAVEPOINT command")
            .execute(self)
            .await?;
        Ok(())
    }
}
