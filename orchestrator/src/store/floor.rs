//! The floors, the sagas that hold them, and the deletion of rows below them.

use crate::upkeep::floors::{Floors, Seen};
use chrono::{DateTime, Utc};
use saga_core::ids::Timestamp;
use saga_messaging::partition::{CommittedValue, least_id};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

/// The number of sagas older than the retention that are counted, and the number of them that are named.
const COUNTED: i64 = 10_000;
const NAMED: i64 = 10;

/// The database's clock, the present floors, and when the oldest saga that has not ended began.
#[derive(Clone, Copy, Debug)]
pub struct FloorStatus {
    pub now: Timestamp,
    pub floors: Floors,
    pub oldest_live_ms: Option<i64>,
}

/// Raises the floors as far as they may rise. Notes the new start floor in `settled`, so that a later call can see
/// whether every process uses it.
pub async fn raise(
    pool: &PgPool,
    retention_ms: Option<i64>,
    settled: &mut CommittedValue,
) -> Result<FloorStatus, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // This must come before the oldest live saga is read: whoever could still start an older saga has finished by then,
    // and that saga is visible.
    let settled_ms = settled.visible_to_all(&mut connection).await?;
    let mut tx = connection.begin().await?;
    let (stored, now) = locked(&mut tx).await?;
    let oldest_live_ms = oldest_live(&mut tx).await?;
    let floors = stored.raised(Seen {
        now_ms: now.timestamp_millis(),
        oldest_live_ms,
        retention_ms,
        settled_ms,
    });
    if floors != stored {
        sqlx::query("UPDATE floor SET starts_from_ms = $1, floor_ms = $2 WHERE singleton")
            .bind(floors.starts_from_ms)
            .bind(floors.floor_ms)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    settled.note(&mut connection, floors.starts_from_ms).await?;
    Ok(FloorStatus {
        now,
        floors,
        oldest_live_ms,
    })
}

async fn locked(tx: &mut PgConnection) -> Result<(Floors, Timestamp), sqlx::Error> {
    let (starts_from_ms, floor_ms, now): (i64, i64, DateTime<Utc>) = sqlx::query_as(
        "SELECT starts_from_ms, floor_ms, clock_timestamp() FROM floor WHERE singleton FOR UPDATE",
    )
    .fetch_one(tx)
    .await?;
    let floors = Floors {
        starts_from_ms,
        floor_ms,
    };
    Ok((floors, now))
}

async fn oldest_live(tx: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let oldest: Option<Uuid> = sqlx::query_scalar("SELECT id FROM saga ORDER BY id LIMIT 1")
        .fetch_optional(tx)
        .await?;
    Ok(oldest.map(|id| (id.as_u128() >> 80) as i64))
}

/// The sagas that hold the floor: they are live, and older than anything that may still be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overaged {
    /// The number of these sagas, at most [`COUNTED`].
    pub count: i64,
    /// The oldest of these sagas.
    pub ids: Vec<Uuid>,
}

/// Returns the live sagas older than `starts_from_ms`, which is where the floor would be without them.
pub async fn overaged(pool: &PgPool, starts_from_ms: i64) -> Result<Overaged, sqlx::Error> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM saga WHERE id < $1 ORDER BY id LIMIT $2")
            .bind(least_id(starts_from_ms))
            .bind(COUNTED)
            .fetch_all(pool)
            .await?;
    let count = ids.len() as i64;
    let named = NAMED as usize;
    Ok(Overaged {
        count,
        ids: ids.into_iter().take(named).collect(),
    })
}

/// Returns the present floors and the overaged sagas, for the API.
pub async fn current(pool: &PgPool) -> Result<(Floors, Overaged), sqlx::Error> {
    let (starts_from_ms, floor_ms): (i64, i64) =
        sqlx::query_as("SELECT starts_from_ms, floor_ms FROM floor WHERE singleton")
            .fetch_one(pool)
            .await?;
    let floors = Floors {
        starts_from_ms,
        floor_ms,
    };
    Ok((floors, overaged(pool, starts_from_ms).await?))
}

/// Deletes audit rows of actions on sagas below the floor, at most `limit` of them, and returns how many. Only its
/// audit row keeps a replayed action from being decided again, so the rows of a saga that may be live stay, however old
/// they are. An action on an unknown saga has no place among the sagas: its row is deleted by the time of its decision.
pub async fn forget_actions(pool: &PgPool, floor_ms: i64, limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "DELETE FROM operator_action WHERE id IN (
           SELECT id FROM operator_action
           WHERE saga_id < $1 OR (code = 'unknown_saga' AND decided_at < $2) LIMIT $3)",
    )
    .bind(least_id(floor_ms))
    .bind(DateTime::<Utc>::from_timestamp_millis(floor_ms).unwrap_or_default())
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

/// Deletes decisions about dead letters that Kafka has deleted too, at most `limit` of them, and returns how many. The
/// dead-letter topics keep letters for less time than sagas are remembered, which is checked at startup.
pub async fn forget_letters(pool: &PgPool, floor_ms: i64, limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "DELETE FROM dead_letter WHERE ctid = ANY (ARRAY(
           SELECT ctid FROM dead_letter WHERE greatest(written_at, decided_at) < $1 LIMIT $2))",
    )
    .bind(DateTime::<Utc>::from_timestamp_millis(floor_ms).unwrap_or_default())
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}
