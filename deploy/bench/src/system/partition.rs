//! Partitions of the services' tables.

use anyhow::{Result, ensure};
use sqlx::{AssertSqlSafe, PgPool};

/// Drops an empty partition that the services' own upkeep created for a time for which the bench creates its own
/// partitions. Fails if the partition has rows.
pub async fn drop_empty(pool: &PgPool, partition: &str) -> Result<()> {
    // The name comes from the catalog.
    let quoted = partition.replace('"', "\"\"");
    let question = format!("SELECT EXISTS (SELECT FROM \"{quoted}\")");
    let is_used: bool = sqlx::query_scalar(AssertSqlSafe(question))
        .fetch_one(pool)
        .await?;
    ensure!(!is_used, "{partition} has rows in it");
    sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE \"{quoted}\"")))
        .execute(pool)
        .await?;
    Ok(())
}
