//! The outbox's statements.

use sqlx::{PgConnection, postgres::types::PgInterval};
use std::time::Duration;

fn interval(time: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: time.as_micros() as i64,
    }
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    count: usize,
    records: &[u8],
    lease: Duration,
) -> Result<i64, sqlx::Error> {
    // clock_timestamp, not now(): the claim runs from here, however long the transaction was under way before.
    sqlx::query_scalar(
        "INSERT INTO outbox (claimed_until, record_count, records)
         VALUES (clock_timestamp() + $1, $2, $3)
         RETURNING id",
    )
    .bind(interval(lease))
    .bind(count as i32)
    .bind(records)
    .fetch_one(connection)
    .await
}

pub(super) async fn delete(connection: &mut PgConnection, ids: &[i64]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Records in rows whose claim is over.
pub(super) async fn abandoned(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COALESCE(SUM(record_count), 0)::bigint FROM outbox
         WHERE claimed_until < clock_timestamp()",
    )
    .fetch_one(connection)
    .await
}

/// Claims the oldest rows whose claim is over, in the order of their ids.
pub(super) async fn claim(
    connection: &mut PgConnection,
    limit: i64,
    lease: Duration,
) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    // SKIP LOCKED: what another instance is taking now is its own.
    let mut rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "UPDATE outbox SET claimed_until = clock_timestamp() + $2
         WHERE id IN (SELECT id FROM outbox
                      WHERE claimed_until < clock_timestamp()
                      ORDER BY id LIMIT $1
                      FOR UPDATE SKIP LOCKED)
         RETURNING id, records",
    )
    .bind(limit)
    .bind(interval(lease))
    .fetch_all(connection)
    .await?;
    rows.sort_unstable_by_key(|(id, _)| *id);
    Ok(rows)
}
