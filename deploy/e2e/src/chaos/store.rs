//! The harness's own queries to the databases. They bypass the proxies and run as superuser.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;
use uuid::Uuid;

/// The limit for connecting and for a query: Postgres may be unavailable, and the caller tries again.
const TIMEOUT: Duration = Duration::from_secs(5);

async fn connect(url: &str) -> Result<PgConnection> {
    Ok(tokio::time::timeout(TIMEOUT, PgConnection::connect(url)).await??)
}

pub async fn create_database(superuser_url: &str, name: &str) -> Result<()> {
    let mut connection = connect(superuser_url).await?;
    // The names are those of the services, so quoting them is safe.
    let statement = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// Ends every client session except this one.
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

/// While this trigger exists, the simulated gateway answers every key that it does not know yet with "nothing was
/// done", in every process. The trigger replaces the row to be inserted into the gateway's ledger by one with the
/// decision `failed`.
const BREAK_GATEWAY: &str = "
CREATE OR REPLACE FUNCTION chaos_gateway_fails() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_trigger_depth() > 1 OR NEW.decision = 'failed' THEN
    RETURN NEW;
  END IF;
  INSERT INTO gateway_ledger (key, operation, amount_minor, currency, decision, message, order_id)
  VALUES (NEW.key, NEW.operation, NEW.amount_minor, NEW.currency, 'failed', 'the gateway is broken for a while',
          split_part(NEW.key, '/', 1)::uuid)
  ON CONFLICT (key) DO NOTHING;
  RETURN NULL;
END
$$;
CREATE TRIGGER chaos_gateway_fails BEFORE INSERT ON gateway_ledger
  FOR EACH ROW EXECUTE FUNCTION chaos_gateway_fails();";

const MEND_GATEWAY: &str = "DROP TRIGGER IF EXISTS chaos_gateway_fails ON gateway_ledger";

pub async fn break_gateway(url: &str) -> Result<()> {
    let mut connection = connect(url).await?;
    sqlx::raw_sql(BREAK_GATEWAY)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

pub async fn mend_gateway(url: &str) -> Result<()> {
    let mut connection = connect(url).await?;
    sqlx::raw_sql(MEND_GATEWAY).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// A live saga, with the columns that show whether it has moved.
#[derive(Clone, Debug)]
pub struct LiveSaga {
    pub id: Uuid,
    pub version: i64,
    pub status: String,
    pub waiting_kind: String,
}

saga_postgres::from_row!(LiveSaga: id, version, status, waiting_kind);

/// Reads the live sagas over one connection, and reconnects when the connection breaks.
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
        // The connection is kept only if it has just worked.
        self.connection = Some(connection);
        Ok(rows)
    }
}

/// A placed order with its current status.
#[derive(Clone, Debug)]
pub struct PlacedOrder {
    pub id: Uuid,
    pub customer_id: Uuid,
    pub status: String,
    pub reason: Option<String>,
}

saga_postgres::from_row!(PlacedOrder: id, customer_id, status, reason);

pub async fn orders(url: &str) -> Result<Vec<PlacedOrder>> {
    let mut connection = connect(url).await?;
    let query = "SELECT id, customer_id, status, reason->>'code' AS reason FROM orders ORDER BY id";
    Ok(sqlx::query_as(query).fetch_all(&mut connection).await?)
}

/// Returns the number of messages in order-svc's outbox that have not been published.
pub async fn outbox_rows(url: &str) -> Result<i64> {
    let mut connection = connect(url).await?;
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM outbox");
    Ok(count.fetch_one(&mut connection).await?)
}

/// Returns the orders that have not ended.
pub async fn pending_orders(url: &str) -> Result<Vec<Uuid>> {
    let mut connection = connect(url).await?;
    let query = sqlx::query_scalar("SELECT id FROM orders WHERE status = 'PENDING'");
    Ok(query.fetch_all(&mut connection).await?)
}
