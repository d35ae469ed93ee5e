//! The statements on intents.

use super::{Keys, from_json, key, to_json, undecodable};
use crate::{
    barrier::RowKey,
    calls::PublishedIntent,
    intent::{Intent, IntentState},
};
use metrics::counter;
use saga_core::ids::Timestamp;
use saga_messaging::partition::least_id;
use sqlx::{PgConnection, postgres::types::PgInterval};
use std::time::Duration;
use tracing::error;
use uuid::Uuid;

fn interval(time: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: time.as_micros() as i64,
    }
}

struct Row {
    saga_id: Uuid,
    step: String,
    direction: String,
    generation: i32,
    state: String,
    lease_until: Timestamp,
    opened_at: Timestamp,
    command: String,
    cancel_requested: Option<String>,
    resolve_requested: Option<String>,
    replies: Option<String>,
}

saga_postgres::from_row!(
    Row: saga_id, step, direction, generation, state, lease_until, opened_at, command,
    cancel_requested, resolve_requested, replies
);

impl Row {
    fn decode(self) -> Result<(RowKey, Intent), sqlx::Error> {
        let state = IntentState::parse(&self.state)
            .ok_or_else(|| undecodable(&format!("intent state '{}'", self.state)))?;
        let intent = Intent {
            generation: self.generation,
            state,
            lease_until: self.lease_until,
            opened_at: self.opened_at,
            command: from_json(&self.command)?,
            cancel: self
                .cancel_requested
                .as_deref()
                .map(from_json)
                .transpose()?,
            resolve: self
                .resolve_requested
                .as_deref()
                .map(from_json)
                .transpose()?,
            replies: self.replies.as_deref().map(from_json).transpose()?,
        };
        Ok((key(self.saga_id, self.step, &self.direction)?, intent))
    }
}

fn decoded(rows: Vec<Row>) -> Result<Vec<(RowKey, Intent)>, sqlx::Error> {
    rows.into_iter().map(Row::decode).collect()
}

/// Locks and reads all intents of these sagas.
pub async fn lock(
    tx: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<(RowKey, Intent)>, sqlx::Error> {
    let rows = sqlx::query_as(
        "SELECT saga_id, step, direction::text, generation, state, lease_until, opened_at, \
         command::text, cancel_requested::text, resolve_requested::text, replies::text \
         FROM intent WHERE saga_id = ANY($1) ORDER BY intent.saga_id, intent.step, \
         intent.direction FOR UPDATE",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    decoded(rows)
}

/// Writes intents as they are in memory. A concurrent transaction's new intent can be overwritten only by a transaction
/// that then finds the other's barrier row and is rolled back.
pub async fn write(tx: &mut PgConnection, rows: &[(&RowKey, &Intent)]) -> Result<(), sqlx::Error> {
    let keys = Keys::of(rows.iter().map(|(key, _)| *key));
    let column = |of: fn(&Intent) -> Result<Option<String>, sqlx::Error>| {
        rows.iter()
            .map(|(_, intent)| of(intent))
            .collect::<Result<Vec<_>, _>>()
    };
    let generations: Vec<i32> = rows.iter().map(|(_, intent)| intent.generation).collect();
    let states: Vec<&str> = rows.iter().map(|(_, i)| i.state.as_str()).collect();
    let leases: Vec<Timestamp> = rows.iter().map(|(_, intent)| intent.lease_until).collect();
    let opened: Vec<Timestamp> = rows.iter().map(|(_, intent)| intent.opened_at).collect();
    sqlx::query(
        "INSERT INTO intent (saga_id, step, direction, generation, state, lease_until, opened_at, \
         command, cancel_requested, resolve_requested, replies) \
         SELECT saga_id, step, direction::\"char\", generation, state, lease_until, opened_at, \
         command::json, cancel::json, resolve::json, replies::json \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], \
         $6::timestamptz[], $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[]) \
         AS u(saga_id, step, direction, generation, state, lease_until, opened_at, command, \
         cancel, resolve, replies) ORDER BY 1, 2, 3 \
         ON CONFLICT (saga_id, step, direction) DO UPDATE SET generation = excluded.generation, \
         state = excluded.state, lease_until = excluded.lease_until, \
         opened_at = excluded.opened_at, command = excluded.command, \
         cancel_requested = excluded.cancel_requested, \
         resolve_requested = excluded.resolve_requested, replies = excluded.replies",
    )
    .bind(&keys.sagas)
    .bind(&keys.steps)
    .bind(&keys.directions)
    .bind(&generations)
    .bind(&states)
    .bind(&leases)
    .bind(&opened)
    .bind(column(|intent| to_json(&intent.command).map(Some))?)
    .bind(column(|intent| {
        intent.cancel.as_ref().map(to_json).transpose()
    })?)
    .bind(column(|intent| {
        intent.resolve.as_ref().map(to_json).transpose()
    })?)
    .bind(column(|intent| {
        intent.replies.as_ref().map(to_json).transpose()
    })?)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn remove(tx: &mut PgConnection, rows: &[&RowKey]) -> Result<(), sqlx::Error> {
    let keys = Keys::of(rows.iter().copied());
    sqlx::query(
        "DELETE FROM intent i \
         USING unnest($1::uuid[], $2::text[], $3::text[]) AS u(saga_id, step, direction) \
         WHERE i.saga_id = ANY(ARRAY[u.saga_id]) AND i.step = u.step \
         AND i.direction = u.direction::\"char\"",
    )
    .bind(&keys.sagas)
    .bind(&keys.steps)
    .bind(&keys.directions)
    .execute(tx)
    .await?;
    Ok(())
}

/// Closes intents whose replies are acknowledged: final ones are removed, and the others have nothing more to send.
/// Both statements check the state, which shows whether an intent has been opened again since.
pub async fn close(tx: &mut PgConnection, acked: &[PublishedIntent]) -> Result<(), sqlx::Error> {
    let (ended, waiting): (Vec<&PublishedIntent>, Vec<&PublishedIntent>) =
        acked.iter().partition(|told| told.is_final);
    let statements = [
        (
            ended,
            "DELETE FROM intent i USING unnest($1::uuid[], $2::text[], $3::text[], $4::int[]) \
             AS u(saga_id, step, direction, generation) \
             WHERE i.saga_id = ANY(ARRAY[u.saga_id]) AND i.step = u.step \
             AND i.direction = u.direction::\"char\" AND i.generation = u.generation AND i.state = 'settled'",
        ),
        (
            waiting,
            "UPDATE intent i SET replies = NULL, cancel_requested = NULL, resolve_requested = NULL \
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[]) \
             AS u(saga_id, step, direction, generation) \
             WHERE i.saga_id = ANY(ARRAY[u.saga_id]) AND i.step = u.step \
             AND i.direction = u.direction::\"char\" AND i.generation = u.generation AND i.state IN ('released', 'expired')",
        ),
    ];
    for (told, statement) in statements {
        if told.is_empty() {
            continue;
        }
        let keys = Keys::of(told.iter().map(|told| &told.key));
        let generations: Vec<i32> = told.iter().map(|told| told.generation).collect();
        sqlx::query(statement)
            .bind(&keys.sagas)
            .bind(&keys.steps)
            .bind(&keys.directions)
            .bind(&generations)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Claims intents whose lease is over, at most `limit`: those with a call to make if `calls`, else those with replies
/// to send.
pub async fn claim(
    connection: &mut PgConnection,
    calls: bool,
    limit: usize,
    lease: Duration,
) -> Result<Vec<(RowKey, Intent)>, sqlx::Error> {
    // SKIP LOCKED leaves out the intents that another instance is claiming now.
    let rows: Vec<Row> = sqlx::query_as(
        "UPDATE intent i SET lease_until = clock_timestamp() + $3 \
         FROM (SELECT saga_id, step, direction FROM intent \
               WHERE (state = 'open' OR replies IS NOT NULL) AND (state = 'open') = $1 \
               AND lease_until < clock_timestamp() \
               ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED) AS due \
         WHERE i.saga_id = ANY(ARRAY[due.saga_id]) AND i.step = due.step AND i.direction = due.direction \
         RETURNING i.saga_id, i.step, i.direction::text, i.generation, i.state, i.lease_until, \
         i.opened_at, i.command::text, i.cancel_requested::text, i.resolve_requested::text, \
         i.replies::text",
    )
    .bind(calls)
    .bind(limit as i64)
    .bind(interval(lease))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(readable).collect())
}

/// Decodes an intent. An intent that cannot be read is logged and skipped, so that it does not keep others from being
/// swept. It stays in the table, and is claimed and logged again whenever its lease is over.
fn readable(row: Row) -> Option<(RowKey, Intent)> {
    let (saga, step) = (row.saga_id, row.step.clone());
    row.decode()
        .inspect_err(|unreadable| {
            counter!("saga_intents_unreadable_total").increment(1);
            error!(
                saga.id = %saga,
                saga.step = step,
                error = unreadable as &dyn std::error::Error,
                "an external call's intent cannot be read; it stays for a person to look at"
            );
        })
        .ok()
}

/// Returns the number of intents that are open or not acknowledged, the number of expired ones, and the database's
/// time.
pub async fn count(connection: &mut PgConnection) -> Result<(i64, i64, Timestamp), sqlx::Error> {
    sqlx::query_as(
        // Each count has its index: rows come and go, so most of the table's pages hold dead rows.
        "SELECT (SELECT COUNT(*) FROM intent WHERE state = 'open' OR replies IS NOT NULL), \
         (SELECT COUNT(*) FROM intent WHERE state = 'expired'), clock_timestamp()",
    )
    .fetch_one(connection)
    .await
}

/// Returns when the oldest saga began that has an open call, or replies that are not acknowledged.
pub async fn oldest_open(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let oldest: Option<Uuid> = sqlx::query_scalar(
        "SELECT saga_id FROM intent WHERE state = 'open' OR replies IS NOT NULL \
         ORDER BY saga_id LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    Ok(oldest.map(|saga| (saga.as_u128() >> 80) as i64))
}

/// Removes the intents that calls of sagas below the floor have left: released ones, kept for their generation, and
/// expired ones, kept for a person. Removes at most `limit` and returns their number.
pub async fn forget(
    connection: &mut PgConnection,
    floor_ms: i64,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "DELETE FROM intent WHERE (saga_id, step, direction) IN ( \
         SELECT saga_id, step, direction FROM intent WHERE saga_id < $1 \
         AND state <> 'open' AND replies IS NULL \
         ORDER BY saga_id, step, direction LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(least_id(floor_ms))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(gone.rows_affected())
}
