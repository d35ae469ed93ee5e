//! The barrier's partitions.

use saga_core::ids::Timestamp;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// Any number that nothing else in these databases locks.
const UPKEEP_LOCK: i64 = 0x5341_4741_494E_424F;

/// One at a time; released with the transaction.
pub async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(UPKEEP_LOCK)
        .execute(tx)
        .await?;
    Ok(())
}

/// The database's time, and the first id beyond the newest partition.
pub async fn horizon(tx: &mut PgConnection) -> Result<(Timestamp, Option<Uuid>), sqlx::Error> {
    let now = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(&mut *tx)
        .await?;
    let upper: Option<Option<Uuid>> = sqlx::query_scalar(
        "SELECT substring(pg_get_expr(c.relpartbound, c.oid) \
                          FROM 'TO \\(''([0-9a-f-]{36})''\\)')::uuid AS upper \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'inbox'::regclass ORDER BY upper DESC NULLS LAST LIMIT 1",
    )
    .fetch_optional(tx)
    .await?;
    Ok((now, upper.flatten()))
}

/// `lower` is `None` for everything before `upper`. Made apart and then attached: `CREATE … PARTITION OF` would lock out
/// everybody who uses the table.
pub async fn make(
    tx: &mut PgConnection,
    name: &str,
    lower: Option<Uuid>,
    upper: Uuid,
) -> Result<(), sqlx::Error> {
    let lower = lower.map_or_else(|| "MINVALUE".to_owned(), |id| format!("'{id}'"));
    // Names and bounds are made of dates here, nothing comes from outside.
    let statements = [
        format!("CREATE TABLE {name} (LIKE inbox INCLUDING ALL)"),
        format!(
            "ALTER TABLE inbox ATTACH PARTITION {name} FOR VALUES FROM ({lower}) TO ('{upper}')"
        ),
    ];
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}
