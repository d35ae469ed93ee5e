//! Partitions of history, the floor, and homes that are gone: what upkeep does to the tables.

use chrono::{DateTime, TimeDelta, Utc};
use saga_core::ids::{SagaId, Timestamp};
use sqlx::{AssertSqlSafe, PgPool};
use std::fmt::Write;
use uuid::Uuid;

/// Width of a partition. Few partitions keep the locks of a statement within a backend's fast path; retention drops
/// whole ones.
const PARTITION_DAYS: i64 = 7;
const MS_A_DAY: i64 = 24 * 3_600 * 1_000;
const PARTITION_MS: i64 = PARTITION_DAYS * MS_A_DAY;
/// Taken while partitions are made, so that two orchestrators do not make the same one.
const PARTITION_LOCK: i64 = 0x7361_6761_6869_7374;

/// The least UUIDv7 of an instant.
pub fn least_id(at_ms: i64) -> Uuid {
    Uuid::from_u128(u128::from(at_ms.max(0).cast_unsigned()) << 80)
}

/// First milliseconds of the partitions that cover both instants and everything between.
pub fn partitions_covering(from_ms: i64, to_ms: i64) -> Vec<i64> {
    let first = from_ms.max(0) / PARTITION_MS;
    let last = to_ms.max(0) / PARTITION_MS;
    (first..=last).map(|number| number * PARTITION_MS).collect()
}

/// Makes the partitions that are missing between the two instants; `Ok` means all are there. Returns how far ahead of
/// `now` history can be written.
pub async fn make_partitions(
    pool: &PgPool,
    from: Timestamp,
    now: Timestamp,
    ahead: TimeDelta,
) -> Result<TimeDelta, sqlx::Error> {
    let firsts = partitions_covering(from.timestamp_millis(), (now + ahead).timestamp_millis());
    let present: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'saga_history'::regclass",
    )
    .fetch_all(pool)
    .await?;
    let mut statements = String::new();
    for first in &firsts {
        let name = partition_name(*first);
        if present.contains(&name) {
            continue;
        }
        let (from, to) = (least_id(*first), least_id(first + PARTITION_MS));
        // Writing to a String cannot fail.
        let _written = writeln!(
            statements,
            "CREATE TABLE IF NOT EXISTS {name} PARTITION OF saga_history FOR VALUES FROM ('{from}') TO ('{to}');"
        );
    }
    if !statements.is_empty() {
        let mut transaction = pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(PARTITION_LOCK)
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    let end_ms = firsts.last().map_or(0, |first| first + PARTITION_MS);
    Ok(TimeDelta::milliseconds(end_ms - now.timestamp_millis()))
}

/// `saga_history_20261119`: the day it begins.
fn partition_name(first_ms: i64) -> String {
    let day = DateTime::<Utc>::from_timestamp_millis(first_ms).unwrap_or_default();
    format!("saga_history_{}", day.format("%Y%m%d"))
}

/// Database clock and the oldest saga that has not ended.
pub async fn oldest_live(pool: &PgPool) -> Result<(Timestamp, Option<SagaId>), sqlx::Error> {
    let (now, id): (DateTime<Utc>, Option<Uuid>) =
        sqlx::query_as("SELECT clock_timestamp(), (SELECT id FROM saga ORDER BY id LIMIT 1)")
            .fetch_one(pool)
            .await?;
    Ok((now, id.map(SagaId)))
}

/// Gives sagas whose home partition does not exist another one; the version moves, so a rival's batch runs again.
pub async fn rehome(pool: &PgPool, partitions: i32) -> Result<u64, sqlx::Error> {
    let moved = sqlx::query(
        "WITH lost AS (
           SELECT id FROM saga WHERE home_partition >= $1 OR home_partition < 0 ORDER BY id LIMIT 10000 FOR UPDATE)
         UPDATE saga s SET version = s.version + 1, home_partition = abs(s.home_partition % $1),
           state = jsonb_set(s.state, '{home_partition}', to_jsonb(abs(s.home_partition % $1)))
         FROM lost WHERE s.id = lost.id",
    )
    .bind(partitions)
    .execute(pool)
    .await?;
    Ok(moved.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_cover_both_ends_without_a_gap() {
        let firsts = partitions_covering(10 * MS_A_DAY, 25 * MS_A_DAY);
        assert_eq!(firsts, [7 * MS_A_DAY, 14 * MS_A_DAY, 21 * MS_A_DAY]);
        assert_eq!(partition_name(0), "saga_history_19700101");
    }

    #[test]
    fn the_least_id_of_an_instant_carries_it() {
        let id = least_id(1_790_000_000_000);
        assert_eq!(id.to_string(), "01a0c450-6c00-0000-0000-000000000000");
    }
}
