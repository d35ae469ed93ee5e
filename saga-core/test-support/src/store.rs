//! Shared set-up for tests of a store: a migrated database for each test, and statistics of its statements.

use crate::environment::TestEnv;
use anyhow::Result;
use saga_core::secret::Secret;
use saga_postgres::{PostgresConfig, store_pool};
use sqlx::{PgPool, migrate::Migrator, postgres::PgPoolOptions};

/// Number of connections of a test, which is more than the transactions that it runs at once.
const CONNECTIONS: u32 = 10;

/// Returns a pool of a new, migrated database.
pub async fn database(prefix: &str, migrations: &Migrator) -> Result<PgPool> {
    let url = TestEnv::postgres_only().await.create_database(prefix).await;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(&url)
        .await?;
    migrations.run(&pool).await?;
    Ok(pool)
}

/// Returns a pool with one connection and the settings of a service's own pool, so that its statistics can be read.
pub async fn database_as_in_service(prefix: &str, migrations: &Migrator) -> Result<PgPool> {
    let config = PostgresConfig {
        url: Secret::new(TestEnv::postgres_only().await.create_database(prefix).await),
        max_connections: 1,
        connect_timeout_ms: 5_000,
    };
    let pool = store_pool(&config, "test").await?;
    migrations.run(&pool).await?;
    Ok(pool)
}

/// Returns `tables` with the numbers of their sequential and index scans so far, made by this pool's one connection.
pub async fn scans(pool: &PgPool, tables: &[&str]) -> Result<Vec<(String, i64, i64)>> {
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(pool)
        .await?;
    Ok(sqlx::query_as(
        "SELECT relname::text, seq_scan, COALESCE(idx_scan, 0) FROM pg_stat_user_tables \
         WHERE relname = ANY($1) ORDER BY relname",
    )
    .bind(tables)
    .fetch_all(pool)
    .await?)
}
