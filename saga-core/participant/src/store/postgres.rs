//! Implements the participant's store for a Postgres connection pool.

use super::{floor, inbox, intent};
use crate::storage::{
    BarrierRow, BarrierSnapshot, ClaimLimits, Claimed, Intent, ParticipantStore, ParticipantTx,
    PublishedIntent, RowKey, Savepoints, lock_timeout,
};
use async_trait::async_trait;
use saga_core::ids::{SagaId, Timestamp};
use saga_messaging::consumer::BatchError;
use saga_postgres::silence::limited;
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

    /// Begins the transaction and sets its time limits in one round trip.
    async fn open(&self, statement_timeout: Duration) -> Result<Self::Tx, BatchError> {
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}",
            statement_timeout.as_millis(),
            lock_timeout(statement_timeout).as_millis()
        );
        Ok(self.begin_with(AssertSqlSafe(begin)).await?)
    }

    async fn now(&self) -> Result<Timestamp, BatchError> {
        Ok(limited(floor::now(self)).await?)
    }

    async fn claim(&self, limits: ClaimLimits) -> Result<Claimed, BatchError> {
        let claiming = async {
            let mut connection = self.acquire().await?;
            let calls = intent::claim(&mut connection, true, limits.calls, limits.lease).await?;
            let replies =
                intent::claim(&mut connection, false, limits.replies, limits.lease).await?;
            let (open, expired, now) = intent::count(&mut connection).await?;
            Ok(Claimed {
                now,
                calls,
                replies,
                open,
                expired,
            })
        };
        limited(claiming).await
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

    async fn close_intents(&mut self, told: &[PublishedIntent]) -> Result<(), BatchError> {
        Ok(intent::close(self, told).await?)
    }

    async fn read_barrier(&mut self, sagas: &[SagaId]) -> Result<BarrierSnapshot, BatchError> {
        Ok(inbox::read(self, &uuids(sagas)).await?)
    }

    async fn insert_barrier(&mut self, rows: &[(&RowKey, &BarrierRow)]) -> Result<u64, BatchError> {
        Ok(inbox::insert(self, rows).await?)
    }

    async fn settle_barrier(&mut self, rows: &[(&RowKey, &BarrierRow)]) -> Result<u64, BatchError> {
        Ok(inbox::settle(self, rows).await?)
    }

    async fn release_barrier(&mut self, rows: &[&RowKey]) -> Result<u64, BatchError> {
        Ok(inbox::release(self, rows).await?)
    }

    async fn commit(self) -> Result<(), BatchError> {
        Ok(Transaction::commit(self).await?)
    }
}

/// Savepoints by plain statements: sqlx's nested transactions have another type, and a handler's author gets the
/// connection.
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
        // `ROLLBACK TO` keeps the savepoint, and each savepoint kept would nest the next one a level deeper.
        raw_sql("ROLLBACK TO SAVEPOINT command; RELEASE SAVEPOINT command")
            .execute(self)
            .await?;
        Ok(())
    }
}
