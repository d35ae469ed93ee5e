//! What the harness itself asks the databases: past the proxies, as their superuser.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;
use uuid::Uuid;

/// Postgres may be away; whoever asks comes again.
const TIMEOUT: Duration = Duration::from_secs(5);

async fn connect(url: &str) -> Result<PgConnection> {
    Ok(tokio::time::timeout(TIMEOUT, PgConnection::connect(url)).await??)
}

pub async fn create_database(superuser_url: &str, name: &str) -> Result<()> {
    let mut connection = connect(superuser_url).await?;
    // Names are the services' own.
    let statement = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// Ends every session but ours.
pub async fn terminate_backends(superuser_url: &str) -> Result<u64> {
    let mut connection = connect(superuser_url).await?;
    let ended = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    .execute(&mut connection)
    .await?;
    Ok(ended.rows_affected())
}

/// A live saga, as far as its movement is concerned.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LiveSaga {
    pub id: Uuid,
    pub version: i64,
    pub status: String,
    pub waiting_kind: String,
}

/// Sagas that are under way, over one connection that is made again when it breaks.
#[derive(Debug)]
pub struct Watcher {
    url: String,
    connection: Option<PgConnection>,
}

impl Watcher {
    pub fn new(url: String) -> Self {
        Self {
            url,
            connection: None,
        }
    }

    pub async fn live(&mut self) -> Result<Vec<LiveSaga>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.url).await?,
        };
        let query = sqlx::query_as("SELECT id, version, status, waiting_kind FROM saga")
            .fetch_all(&mut connection);
        let rows = tokio::time::timeout(TIMEOUT, query).await??;
        // Only a connection that has just worked is kept.
        self.connection = Some(connection);
        Ok(rows)
    }
}

/// An order as it ended, or not.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct PlacedOrder {
    pub id: Uuid,
    pub customer_id: Uuid,
    pub status: String,
    pub reason: Option<String>,
}

pub async fn orders(url: &str) -> Result<Vec<PlacedOrder>> {
    let mut connection = connect(url).await?;
    let query = "SELECT id, customer_id, status, reason->>'code' AS reason FROM orders ORDER BY id";
    Ok(sqlx::query_as(query).fetch_all(&mut connection).await?)
}

/// Messages of accepted orders that have not been passed on.
pub async fn outbox_rows(url: &str) -> Result<i64> {
    let mut connection = connect(url).await?;
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM outbox");
    Ok(count.fetch_one(&mut connection).await?)
}

/// Orders that have not ended.
pub async fn pending_orders(url: &str) -> Result<Vec<Uuid>> {
    let mut connection = connect(url).await?;
    let query = sqlx::query_scalar("SELECT id FROM orders WHERE status = 'PENDING'");
    Ok(query.fetch_all(&mut connection).await?)
}
