//! The saga floors, below which no command may have an effect, and the database's time.
//!
//! The statements say `WHERE singleton` because the stores' connections forbid sequential scans: a forbidden scan has
//! such a high cost that Postgres would compile it (JIT).

use saga_core::ids::Timestamp;
use sqlx::{PgConnection, PgPool};

pub async fn raise_seen(tx: &mut PgConnection, floor_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE saga_floor SET seen_ms = $1 WHERE singleton AND seen_ms < $1")
        .bind(floor_ms)
        .execute(tx)
        .await?;
    Ok(())
}

/// Returns the database's time, outside a transaction.
pub async fn now(pool: &PgPool) -> Result<Timestamp, sqlx::Error> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(pool)
        .await
}

/// The floors and the database's time, read outside of any batch.
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

/// Raises the own floor, which never falls. Commands below it are refused from the commit on.
pub async fn raise_own(pool: &PgPool, floor_ms: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE saga_floor SET own_ms = $1 WHERE singleton AND own_ms < $1")
        .bind(floor_ms)
        .execute(pool)
        .await?;
    Ok(())
}
