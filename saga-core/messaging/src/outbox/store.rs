//! Implements the outbox's table on Postgres: a connection in a transaction stages, and a pool serves the relay.

use super::storage::{OutboxStore, OutboxTx};
use crate::consumer::BatchError;
use async_trait::async_trait;
use saga_postgres::silence::limited;
use sqlx::{PgConnection, PgPool, postgres::types::PgInterval};
use std::time::Duration;

fn interval(time: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: time.as_micros() as i64,
    }
}

#[async_trait]
impl OutboxTx for PgConnection {
    async fn replace(
        &mut self,
        acked: &[i64],
        count: usize,
        records: &[u8],
        lease: Duration,
    ) -> Result<i64, BatchError> {
        Ok(replace(self, acked, count, records, lease).await?)
    }
}

#[async_trait]
impl OutboxStore for PgPool {
    async fn remove(&self, ids: &[i64]) -> Result<(), BatchError> {
        limited(async { Ok(delete(&mut *self.acquire().await?, ids).await?) }).await
    }

    async fn claim(
        &self,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<(i64, Vec<u8>)>, BatchError> {
        limited(async {
            let mut connection = self.acquire().await?;
            Ok(claim(&mut connection, limit as i64, lease).await?)
        })
        .await
    }

    async fn abandoned(&self) -> Result<u64, BatchError> {
        limited(async {
            let count = abandoned(&mut *self.acquire().await?).await?;
            Ok(count.unsigned_abs())
        })
        .await
    }
}

async fn replace(
    connection: &mut PgConnection,
    acked: &[i64],
    count: usize,
    records: &[u8],
    lease: Duration,
) -> Result<i64, sqlx::Error> {
    // The lease must begin now, however old the transaction is, so this is clock_timestamp and not now().
    sqlx::query_scalar(
        "WITH gone AS (DELETE FROM outbox WHERE id = ANY($4))
         INSERT INTO outbox (claimed_until, record_count, records)
         VALUES (clock_timestamp() + $1, $2, $3)
         RETURNING id",
    )
    .bind(interval(lease))
    .bind(count as i32)
    .bind(records)
    .bind(acked)
    .fetch_one(connection)
    .await
}

async fn delete(connection: &mut PgConnection, ids: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the number of records in rows whose lease is over.
async fn abandoned(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COALESCE(SUM(record_count), 0)::bigint FROM outbox
         WHERE claimed_until < clock_timestamp()",
    )
    .fetch_one(connection)
    .await
}

/// Claims the oldest rows whose lease is over, and returns them in the order of their ids.
async fn claim(
    connection: &mut PgConnection,
    limit: i64,
    lease: Duration,
) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    // SKIP LOCKED leaves out the rows that another instance is claiming now.
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
