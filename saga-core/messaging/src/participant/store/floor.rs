//! Below which time nothing may have an effect, and the database's time.
//!
//! `WHERE singleton`, because stores forbid sequential scans, and one that is forbidden is so dear that Postgres compiles
//! it.

use saga_core::ids::Timestamp;
use sqlx::{PgConnection, PgPool};

pub async fn raise_seen(tx: &mut PgConnection, floor_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE saga_floor SET seen_ms = $1 WHERE singleton AND seen_ms < $1")
        .bind(floor_ms)
        .execute(tx)
        .await?;
    Ok(())
}

/// The database's time, where there is no transaction.
pub async fn now(pool: &PgPool) -> Result<Timestamp, sqlx::Error> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(pool)
        .await
}

/// Outside of any batch.
#[derive(Clone, Copy, Debug)]
pub struct Floors {
    pub now: Timestamp,
    pub own_ms: i64,
    pub seen_ms: i64,
}

pub async fn read(pool: &PgPool) -> Result<Floors, sqlx::Error> {
    let (now, own_ms, seen_ms) =
        sqlx::query_as("SELECT clock_timestamp(), own_ms, seen_ms FROM saga_floor WHERE singleton")
            .fetch_one(pool)
            .await?;
    Ok(Floors {
        now,
        own_ms,
        seen_ms,
    })
}

/// Commands below it are refused from the commit on. A floor never falls.
pub async fn raise_own(pool: &PgPool, floor_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE saga_floor SET own_ms = $1 WHERE singleton AND own_ms < $1")
        .bind(floor_ms)
        .execute(pool)
        .await?;
    Ok(())
}
