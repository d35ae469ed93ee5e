//! The statements that the timers run: they read due times, and sagas as they are stored now. None of them takes a
//! lock.

use super::pg_store::PgStore;
use crate::engine::{
    timer_driver::{QueuedPage, TimerStore, TimerStoreError},
    timers::{
        queue::{DueRow, QueuedRow},
        queued_index::QueuedCommand,
    },
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
};
use saga_postgres::silence::limited;
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

/// Reads due times. There is no index on a column that changes, so this scans the live table once: 0.3 to 0.5 s for a
/// million rows. Rows of which only queued commands have come due are skipped, because these are not part of
/// `next_due`.
const DUE_ROWS: &str = "SELECT id, home_partition, next_due FROM saga
WHERE home_partition = ANY($1::integer[]) AND next_due < $2";

/// Reads a page of the search for queued commands. A page consists of live rows, whatever they wait for, so that no
/// page takes longer than another. The last row of the page is always returned, because the next page begins after it.
pub const QUEUED_ROWS: &str = "WITH page AS MATERIALIZED (
  SELECT id, home_partition, next_due, queued FROM saga WHERE id > $1 ORDER BY id LIMIT $2
)
SELECT id, home_partition, next_due, queued FROM page
WHERE (home_partition = ANY($3::integer[]) AND queued IS NOT NULL) OR id = (SELECT id FROM page ORDER BY id DESC LIMIT 1)";

type QueuedColumns = (
    Uuid,
    i32,
    Option<DateTime<Utc>>,
    Option<Json<Vec<QueuedCommand>>>,
);

const LIVE: &str = "SELECT state FROM saga WHERE id = ANY($1::uuid[])";

/// Returns a page of the live sagas of a home partition, in id order.
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
        let now = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(self.reporting());
        let now: DateTime<Utc> = limited(now).await.map_err(failed)?;
        let rows = sqlx::query_as(DUE_ROWS)
            .bind(home_partitions)
            .bind(now + ahead)
            .fetch_all(self.reporting());
        let rows: Vec<(Uuid, i32, DateTime<Utc>)> = limited(rows).await.map_err(failed)?;
        let rows = rows
            .into_iter()
            .map(|(id, home_partition, next_due)| DueRow {
                id: SagaId(id),
                home_partition,
                next_due,
            });
        Ok((now, rows.collect()))
    }

    /// Uses the pool with fixed query plans, because the index of the primary key is what makes a page cheap.
    async fn queued_rows(
        &self,
        home_partitions: &[i32],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<QueuedPage, TimerStoreError> {
        let found = sqlx::query_as(QUEUED_ROWS)
            .bind(after.map_or(Uuid::nil(), |id| id.0))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(home_partitions)
            .fetch_all(self.pool());
        let found: Vec<QueuedColumns> = limited(found).await.map_err(failed)?;
        let last = found.iter().map(|(id, ..)| SagaId(*id)).max();
        let rows = found
            .into_iter()
            .filter_map(|(id, home_partition, next_due, queued)| {
                Some(QueuedRow {
                    id: SagaId(id),
                    home_partition,
                    next_due,
                    queued: queued?.0,
                })
            })
            .filter(|row| home_partitions.contains(&row.home_partition));
        Ok(QueuedPage {
            rows: rows.collect(),
            last,
        })
    }

    async fn live(&self, sagas: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError> {
        let ids: Vec<Uuid> = sagas.iter().map(|id| id.0).collect();
        let rows = sqlx::query_as(LIVE).bind(ids).fetch_all(self.pool());
        let rows: Vec<(Json<SagaInstance>,)> = limited(rows).await.map_err(failed)?;
        Ok(rows.into_iter().map(|(Json(instance),)| instance).collect())
    }
}

fn failed(error: sqlx::Error) -> TimerStoreError {
    TimerStoreError(Box::new(error))
}
