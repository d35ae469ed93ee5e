//! The statements on partitioned tables.

use super::{Span, least_id};
use chrono::{DateTime, Utc};
use saga_core::ids::Timestamp;
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;
use uuid::Uuid;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Longest wait for a lock to attach a partition, behind other changes of the table; those are never long.
const MAKE_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '5s'";
/// SQLSTATE `lock_not_available`.
const LOCK_TIMEOUT: &str = "55P03";
/// Number of names that are tried if a name belongs to a table that was detached.
const NAMES: u32 = 100;

/// An existing partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    pub span: Span,
}

/// Takes the advisory lock, which one transaction holds at a time; it is released with the transaction.
pub(super) async fn lock(tx: &mut PgConnection, key: i64) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(MAKE_LOCK_TIMEOUT).execute(&mut *tx).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(key)
        .execute(tx)
        .await?;
    Ok(())
}

/// Returns the partitions in the order of their ranges. A bound that is not on a millisecond is rounded up: nothing
/// above a floor may be dropped.
pub(super) async fn list(
    connection: &mut PgConnection,
    table: &str,
) -> Result<Vec<Partition>, sqlx::Error> {
    let rows: Vec<(String, Option<Uuid>, Option<Uuid>)> = sqlx::query_as(
        "SELECT name, substring(bound FROM 'FROM \\(''([0-9a-f-]{36})''\\)')::uuid, \
                substring(bound FROM 'TO \\(''([0-9a-f-]{36})''\\)')::uuid AS upper \
         FROM (SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound \
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
               WHERE i.inhparent = to_regclass($1)) AS partition ORDER BY upper NULLS LAST",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    let at_ms = |id: Uuid| (id.as_u128() >> 80) as i64;
    let partitions = rows.into_iter().map(|(name, lower, upper)| Partition {
        name,
        span: Span {
            from_ms: lower.map(at_ms),
            to_ms: upper.map_or(i64::MAX, |id| {
                at_ms(id) + i64::from(least_id(at_ms(id)) != id)
            }),
        },
    });
    Ok(partitions.collect())
}

/// Creates a table and then attaches it: `CREATE … PARTITION OF` would lock out all users of the partitioned table.
pub(super) async fn make(
    tx: &mut PgConnection,
    table: &str,
    span: Span,
    width_ms: i64,
) -> Result<String, sqlx::Error> {
    let name = free_name(tx, &name_of(table, span, width_ms)).await?;
    let from = span
        .from_ms
        .map_or_else(|| "MINVALUE".to_owned(), |ms| format!("'{}'", least_id(ms)));
    let to = least_id(span.to_ms);
    // Names and bounds are calculated from instants, so no outside text gets into the statements.
    for statement in [
        format!("CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"),
        format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ('{to}')"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *tx)
            .await?;
    }
    Ok(name)
}

/// Returns the name of a partition, such as `inbox_20261119`, from the day on which it begins; partitions narrower than
/// a day also have the time.
fn name_of(table: &str, span: Span, width_ms: i64) -> String {
    let Some(from_ms) = span.from_ms else {
        return format!("{table}_oldest");
    };
    let begins: Timestamp = DateTime::<Utc>::from_timestamp_millis(from_ms).unwrap_or_default();
    if width_ms % DAY_MS == 0 && from_ms % DAY_MS == 0 {
        format!("{table}_{}", begins.format("%Y%m%d"))
    } else {
        format!("{table}_{}", begins.format("%Y%m%d_%H%M%S%3f"))
    }
}

async fn free_name(tx: &mut PgConnection, name: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT name FROM (SELECT $1 AS name, 0 AS n UNION ALL \
         SELECT $1 || '_' || n, n FROM generate_series(2, $2) AS n) AS candidate \
         WHERE to_regclass(name) IS NULL ORDER BY n LIMIT 1",
    )
    .bind(name)
    .bind(NAMES.cast_signed())
    .fetch_one(tx)
    .await
}

/// How long a drop that has locked the table waits for the partition. Transactions that use the table have released
/// both by then. A process that uses only the partition, such as a vacuum, may hold it for minutes, and all traffic
/// would wait for that, too.
const PARTITION_LOCK_MS: u32 = 10;

/// Drops a partition. The table's own lock comes first: all others take it before a partition's lock, so there is no
/// deadlock. The lock is `ONLY` on the table: with the locks of all partitions, the table's traffic would wait for a
/// vacuum of any of them.
pub(super) async fn drop(
    tx: &mut PgConnection,
    table: &str,
    key: i64,
    partition: &str,
    lock_timeout: Duration,
) -> Result<(), sqlx::Error> {
    let timeout_ms = lock_timeout.as_millis();
    // All statements are sent in one round trip, so that the lock is held as briefly as possible. The name comes from
    // the catalog.
    let statements = format!(
        "SET LOCAL lock_timeout = '{timeout_ms}ms'; SELECT pg_advisory_xact_lock({key}); \
         LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE; \
         SET LOCAL lock_timeout = '{PARTITION_LOCK_MS}ms'; DROP TABLE IF EXISTS \"{quoted}\"",
        quoted = partition.replace('"', "\"\""),
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx).await?;
    Ok(())
}

pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some(LOCK_TIMEOUT)
}

/// Returns `true` if a transaction of this user that began at `at` or before is still open. It is also `true` if the
/// server does not track its sessions' activities, because then nothing is known.
pub(super) async fn begun_before(
    connection: &mut PgConnection,
    at: Timestamp,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT NOT current_setting('track_activities')::boolean OR EXISTS ( \
         SELECT FROM pg_stat_activity \
         WHERE datname = current_database() AND usename = current_user \
         AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start <= $1)",
    )
    .bind(at)
    .fetch_one(connection)
    .await
}

pub(super) async fn clock(connection: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_partition_contains_its_beginning() {
        let name = |from_ms, width_ms| {
            let span = Span { from_ms, to_ms: 0 };
            name_of("inbox", span, width_ms)
        };
        assert_eq!(name(Some(DAY_MS), DAY_MS), "inbox_19700102");
        assert_eq!(name(Some(DAY_MS), 7 * DAY_MS), "inbox_19700102");
        assert_eq!(name(None, DAY_MS), "inbox_oldest");
        assert_eq!(name(Some(61_001), 1_000), "inbox_19700101_000101001");
        assert_eq!(name(Some(61_001), DAY_MS), "inbox_19700101_000101001");
    }
}
