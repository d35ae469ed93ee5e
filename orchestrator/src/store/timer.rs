//! What the timers read: due times for memory, and sagas as they stand. Nothing here locks.

use super::PgStore;
use crate::engine::timers::{
    driver::{TimerStore, TimerStoreError},
    queue::DueRow,
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

/// There is no index on a column that changes: this reads the live table once, 0.3 to 0.5 s for a million rows.
const DUE_ROWS: &str = "SELECT id, home_partition, next_due FROM saga
WHERE home_partition = ANY($1::integer[]) AND next_due < $2";

const LIVE: &str = "SELECT state FROM saga WHERE id = ANY($1::uuid[])";

/// Live sagas of a home partition, a page in id order.
pub async fn live_of(
    pool: &PgPool,
    home_partition: i32,
    after: Uuid,
    limit: i64,
) -> Result<Vec<SagaInstance>, sqlx::Error> {
    let rows: Vec<(Json<SagaInstance>,)> = sqlx::query_as(
        "SELECT state FROM saga WHERE id > $1 AND home_partition = $2 ORDER BY id LIMIT $3",
    )
    .bind(after)
    .bind(home_partition)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(Json(instance),)| instance).collect())
}

#[async_trait]
impl TimerStore for PgStore {
    async fn due_rows(
        &self,
        home_partitions: &[i32],
        ahead: TimeDelta,
    ) -> Result<(Timestamp, Vec<DueRow>), TimerStoreError> {
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(self.reporting())
            .await
            .map_err(failed)?;
        let rows: Vec<(Uuid, i32, DateTime<Utc>)> = sqlx::query_as(DUE_ROWS)
            .bind(home_partitions)
            .bind(now + ahead)
            .fetch_all(self.reporting())
            .await
            .map_err(failed)?;
        let rows = rows
            .into_iter()
            .map(|(id, home_partition, next_due)| DueRow {
                id: SagaId(id),
                home_partition,
                next_due,
            });
        Ok((now, rows.collect()))
    }

    async fn live(&self, sagas: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError> {
        let ids: Vec<Uuid> = sagas.iter().map(|id| id.0).collect();
        let rows: Vec<(Json<SagaInstance>,)> = sqlx::query_as(LIVE)
            .bind(ids)
            .fetch_all(self.pool())
            .await
            .map_err(failed)?;
        Ok(rows.into_iter().map(|(Json(instance),)| instance).collect())
    }
}

fn failed(error: sqlx::Error) -> TimerStoreError {
    TimerStoreError(Box::new(error))
}
