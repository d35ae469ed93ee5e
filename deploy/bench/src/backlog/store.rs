//! Reads from the databases what they hold of a backlog.

use crate::system::System;
use anyhow::{Context, Result};
use saga_harness::system::Service;
use saga_messaging::partition::least_id;
use sqlx::{FromRow, PgConnection, postgres::PgRow};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The ids of sagas that began within a time. Ids are UUIDv7, and no other orders are sent while the backlog gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: Uuid,
    until: Uuid,
}

impl Span {
    /// Creates a span from milliseconds of the database's clock, including the last one.
    pub fn new(from_ms: i64, until_ms: i64) -> Self {
        Self {
            from: least_id(from_ms),
            until: least_id(until_ms + 1),
        }
    }
}

/// The state of the backlog in the live table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub sagas: i64,
    pub running: i64,
    /// Sagas that wait for the dead participant.
    pub on_payment: i64,
    /// Those of `on_payment` whose command is known to be queued: their timers have fired, and have used no attempt.
    pub queued: i64,
    pub first_attempt: i64,
}

saga_postgres::from_row!(Waiting: sagas, running, on_payment, queued, first_attempt);

pub async fn now_ms(connection: &mut PgConnection) -> Result<i64> {
    let now = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
    now.fetch_one(connection)
        .await
        .context("the database's clock")
}

/// Asks for one row about the sagas of a span.
async fn of<T>(
    connection: &mut PgConnection,
    span: Span,
    question: &'static str,
) -> Result<T, sqlx::Error>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let asked = sqlx::query_as(question).bind(span.from).bind(span.until);
    asked.fetch_one(connection).await
}

pub async fn waiting(connection: &mut PgConnection, span: Span) -> Result<Waiting> {
    let question = "SELECT count(*) AS sagas, count(*) FILTER (WHERE status = 'running') AS running,
                count(*) FILTER (WHERE waiting_on = 'payment') AS on_payment,
                count(*) FILTER (WHERE waiting_on = 'payment' AND waiting_kind = 'queued') AS queued,
                count(*) FILTER (WHERE attempt = 1) AS first_attempt
         FROM saga WHERE id >= $1 AND id < $2";
    let found = of(connection, span, question).await;
    found.context("the backlog in the live table")
}

/// Returns the size of the live table, with its index and its out-of-line values, in bytes.
pub async fn live_bytes(connection: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT pg_total_relation_size('saga')")
        .fetch_one(connection)
        .await
        .context("the size of the live table")
}

/// Returns when each saga ended, in order of age. The query returns a single array: a million rows would take the
/// memory that is to be measured.
pub async fn ends(connection: &mut PgConnection, span: Span) -> Result<Vec<i64>> {
    let question = "SELECT array_agg((extract(epoch FROM ended_at) * 1000)::bigint ORDER BY id)
         FROM saga_history WHERE id >= $1 AND id < $2";
    let (all,): (Option<Vec<i64>>,) = of(connection, span, question)
        .await
        .context("reading when the sagas of the backlog ended")?;
    Ok(all.unwrap_or_default())
}

/// Returns the number of ended sagas that sent some command more than once.
pub async fn repeated(connection: &mut PgConnection, span: Span) -> Result<i64> {
    let question = "SELECT count(*) FROM saga_history
         WHERE id >= $1 AND id < $2 AND state::text ~ '\"attempt\":(1[0-9]|[2-9])'";
    let found: Result<(i64,), _> = of(connection, span, question).await;
    Ok(found.context("the attempts of the backlog")?.0)
}

/// Returns, for each home partition, when the first saga ended that began since `since_ms`.
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
    .context("reading which sagas have ended since")?;
    Ok(rows.into_iter().collect())
}

/// Returns the number of charges that the gateway has carried out. Its ledger has one row for each key, however often a
/// charge was requested.
pub async fn charges(system: &System) -> Result<i64> {
    let mut payments = system.database_of(Service::Payment).await?;
    sqlx::query_scalar(
        "SELECT count(*) FROM gateway_ledger WHERE operation = 'charge' AND decision = 'approved'",
    )
    .fetch_one(&mut payments)
    .await
    .context("the gateway's ledger")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_includes_ids_of_its_first_and_last_millisecond() {
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
