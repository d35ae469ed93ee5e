//! Postgres's own counters: write-ahead log, commits, size.

use anyhow::{Context, Result};
use sqlx::{Connection, PgConnection};

/// Counters since the server was started. Only their differences are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostgresCounters {
    pub wal_bytes: i64,
    /// Commits in the services' databases. Backends report them once a second, so a stage's count is exact to a second.
    pub commits: i64,
    pub database_bytes: i64,
    pub deadlocks: i64,
}

saga_postgres::from_row!(PostgresCounters: wal_bytes, commits, database_bytes, deadlocks);

pub async fn counters(
    connection: &mut PgConnection,
    databases: &[String],
) -> Result<PostgresCounters> {
    sqlx::query_as(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal_bytes, SUM(xact_commit)::bigint AS commits,
                SUM(pg_database_size(datid))::bigint AS database_bytes, SUM(deadlocks)::bigint AS deadlocks
         FROM pg_stat_database WHERE datname = ANY($1)",
    )
    .bind(databases)
    .fetch_one(connection)
    .await
    .context("reading Postgres's counters")
}

/// Returns the version of Postgres, and the settings that decide how fast and how safe it is.
pub async fn describe(url: &str) -> Result<(String, Vec<(String, String)>)> {
    let mut connection = PgConnection::connect(url).await?;
    let version: String = sqlx::query_scalar("SHOW server_version")
        .fetch_one(&mut connection)
        .await?;
    let settings: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, current_setting(name) FROM pg_settings
         WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size',
                        'checkpoint_timeout', 'wal_compression', 'commit_delay', 'autovacuum', 'max_connections')
         ORDER BY name",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    Ok((version, settings))
}
