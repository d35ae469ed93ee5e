//! Partitions of the services' tables.

use anyhow::{Result, ensure};
use sqlx::{AssertSqlSafe, PgPool};

/// What upkeep made for a time that the bench makes partitions for itself. Nothing may be lost by it.
pub async fn drop_empty(pool: &PgPool, partition: &str) -> Result<()> {
    // The name is one that the catalog told.
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
