//! The floors, and what must not be forgotten yet.

use crate::upkeep::floors::{Floors, Seen};
use chrono::{DateTime, Utc};
use saga_core::ids::Timestamp;
use saga_messaging::partition::{Settled, least_id};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

/// Of the sagas that are older than the retention so many are counted, and named.
const COUNTED: i64 = 10_000;
const NAMED: i64 = 10;

/// The database's clock, the floors as they stand now, and when the oldest saga that has not ended began.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub now: Timestamp,
    pub floors: Floors,
    pub oldest_live_ms: Option<i64>,
}

/// Raises the floors as far as they may, and notes in `settled` what a later call may go by.
pub async fn raise(
    pool: &PgPool,
    retention_ms: Option<i64>,
    settled: &mut Settled,
) -> Result<Standing, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    // Before the oldest live saga is looked for: whoever may still start an older one is over then, and is seen.
    let settled_ms = settled.is_settled(&mut connection).await?;
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
    Ok(Standing {
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

/// Sagas that hold the floor: live, and older than anything that may still be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overaged {
    /// At most [`COUNTED`].
    pub count: i64,
    /// The oldest of them.
    pub ids: Vec<Uuid>,
}

/// `starts_from_ms` is where the floor would be without them.
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

/// The floors and the overaged sagas as they stand, for the API.
pub async fn standing(pool: &PgPool) -> Result<(Floors, Overaged), sqlx::Error> {
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

/// Forgets the audit of actions on sagas below the floor, at most `limit` of them, and says how many. Nothing else keeps
/// a replayed action from being decided again, so those of a saga that may be live stay, however old. An action on a saga
/// that was never known has no place in time: it goes by its own.
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

/// Forgets what was decided about dead letters that Kafka has forgotten too: its topics keep them for less time than sagas
/// are remembered, which is checked at the start.
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
