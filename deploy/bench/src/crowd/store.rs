//! What the databases tell of a crowd.

use anyhow::{Context, Result};
use saga_messaging::partition::least_id;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Sagas that began within a time: ids are UUIDv7, and while the crowd gathers nobody else orders anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: Uuid,
    until: Uuid,
}

impl Span {
    /// Milliseconds of the database's clock, the last one included.
    pub fn new(from_ms: i64, until_ms: i64) -> Self {
        Self {
            from: least_id(from_ms),
            until: least_id(until_ms + 1),
        }
    }
}

/// The crowd as it stands in the live table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    pub sagas: i64,
    pub running: i64,
    /// For the dead participant.
    pub on_payment: i64,
    /// Of these, known not to be picked up: their timers have looked, and burnt no attempt.
    pub queued: i64,
    pub first_attempt: i64,
}

pub async fn now_ms(connection: &mut PgConnection) -> Result<i64> {
    let now = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
    now.fetch_one(connection)
        .await
        .context("the database's clock")
}

pub async fn waiting(connection: &mut PgConnection, span: Span) -> Result<Waiting> {
    sqlx::query_as(
        "SELECT count(*) AS sagas, count(*) FILTER (WHERE status = 'running') AS running,
                count(*) FILTER (WHERE waiting_on = 'payment') AS on_payment,
                count(*) FILTER (WHERE waiting_on = 'payment' AND waiting_kind = 'queued') AS queued,
                count(*) FILTER (WHERE attempt = 1) AS first_attempt
         FROM saga WHERE id >= $1 AND id < $2",
    )
    .bind(span.from)
    .bind(span.until)
    .fetch_one(connection)
    .await
    .context("the crowd in the live table")
}

/// Of the live table, with its index and what is stored beside it.
pub async fn live_bytes(connection: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT pg_total_relation_size('saga')")
        .fetch_one(connection)
        .await
        .context("the size of the live table")
}

/// When each ended, in order of age. As one value: a million rows would take the memory that is to be measured.
pub async fn ends(connection: &mut PgConnection, span: Span) -> Result<Vec<i64>> {
    let all: Option<Vec<i64>> = sqlx::query_scalar(
        "SELECT array_agg((extract(epoch FROM ended_at) * 1000)::bigint ORDER BY id)
         FROM saga_history WHERE id >= $1 AND id < $2",
    )
    .bind(span.from)
    .bind(span.until)
    .fetch_one(connection)
    .await
    .context("when the crowd ended")?;
    Ok(all.unwrap_or_default())
}

/// Ended sagas that sent some command more than once.
pub async fn repeated(connection: &mut PgConnection, span: Span) -> Result<i64> {
    sqlx::query_scalar(
        "SELECT count(*) FROM saga_history
         WHERE id >= $1 AND id < $2 AND state::text ~ '\"attempt\":(1[0-9]|[2-9])'",
    )
    .bind(span.from)
    .bind(span.until)
    .fetch_one(connection)
    .await
    .context("the attempts of the crowd")
}

/// When, in each home partition, the first saga ended of those that began since.
pub async fn first_ends(
    connection: &mut PgConnection,
    since_ms: i64,
) -> Result<BTreeMap<i32, i64>> {
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT (state->>'home_partition')::integer, min((extract(epoch FROM ended_at) * 1000)::bigint)
         FROM saga_history WHERE id >= $1 GROUP BY 1",
    )
    .bind(least_id(since_ms))
    .fetch_all(connection)
    .await
    .context("who ended since")?;
    Ok(rows.into_iter().collect())
}

/// Charges that the gateway has carried out: one row for each key, however often it was asked.
pub async fn charges(url: &str) -> Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let count = sqlx::query_scalar(
        "SELECT count(*) FROM gateway_ledger WHERE operation = 'charge' AND decision = 'approved'",
    )
    .fetch_one(&mut connection)
    .await
    .context("the gateway's ledger")?;
    connection.close().await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_what_began_in_its_first_and_in_its_last_millisecond() {
        let span = Span::new(1_000, 2_000);
        let within = |ms: i64| {
            let last = Uuid::from_u128(least_id(ms).as_u128() | ((1 << 80) - 1));
            [least_id(ms), last]
                .iter()
                .all(|id| (span.from..span.until).contains(id))
        };
        assert!(within(1_000) && within(2_000));
        assert!(!within(999) && !within(2_001));
    }
}
