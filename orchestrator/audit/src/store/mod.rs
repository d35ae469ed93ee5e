//! The SQL statements, one file per database. Each database is read in one read-only snapshot.

pub mod inbox;
pub mod orders;
pub mod payments;
pub mod sagas;
pub mod stock;

use crate::error::AuditError;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use std::time::Duration;
use uuid::Uuid;

/// Starts a read-only transaction in which all statements see the same snapshot.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub type Snapshot<'c> = Transaction<'c, Postgres>;

/// Time limit of a connection attempt. After it, the database counts as unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

pub async fn connect(database: &'static str, url: &str) -> Result<PgConnection, AuditError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect(url)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(AuditError::Database { database, source }),
        Err(_) => Err(AuditError::Away(database)),
    }
}

pub async fn snapshot(connection: &mut PgConnection) -> Result<Snapshot<'_>, sqlx::Error> {
    connection.begin_with(SNAPSHOT).await
}

/// Returns the least id of the oldest partition of a table that is partitioned by range of id: older rows were dropped.
/// Returns `None` if the table has no partition.
pub async fn floor(
    snapshot: &mut Snapshot<'_>,
    table: &'static str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let bounds: Vec<String> = sqlx::query_scalar(
        "SELECT pg_get_expr(c.relpartbound, c.oid)
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = $1::regclass",
    )
    .bind(table)
    .fetch_all(&mut **snapshot)
    .await?;
    Ok(bounds.iter().map(|bound| lower_bound(bound)).min())
}

/// Parses `FOR VALUES FROM ('…') TO ('…')`. Returns the nil id for `MINVALUE`.
fn lower_bound(bound: &str) -> Uuid {
    bound
        .split('\'')
        .nth(1)
        .filter(|_| !bound.contains("FROM (MINVALUE)"))
        .and_then(|text| text.parse().ok())
        .unwrap_or(Uuid::nil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_bounds_are_read() {
        let id = Uuid::from_u128(0x0190 << 112);
        let text = format!("FOR VALUES FROM ('{id}') TO ('{}')", Uuid::max());
        assert_eq!(lower_bound(&text), id);
        let first = format!("FOR VALUES FROM (MINVALUE) TO ('{id}')");
        assert_eq!(lower_bound(&first), Uuid::nil());
    }
}
