//! One batch of inputs: one transaction of multi-row statements.

use super::{action, cache::Cache, definition};
use crate::engine::saga_store::{EndedRow, LiveRow, Loaded, Plan, SagaBatch, SagaRow};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use saga_core::{
    definition::{DefinitionHash, SagaDefinition},
    ids::SagaId,
    instance::SagaInstance,
};
use saga_messaging::{partition::PartitionAlarm, rule::BatchError};
use serde::Serialize;
use sqlx::{PgConnection, Postgres, Transaction, types::Json};
use std::collections::{BTreeSet, HashMap};
use thiserror::Error;
use uuid::Uuid;

/// Fewer rows than planned: somebody else moved one of the sagas between our reading and our writing.
#[derive(Debug, Error)]
#[error("a rival was first: {statement} changed {changed} rows, not {planned}")]
pub struct Conflict {
    pub statement: &'static str,
    pub planned: usize,
    pub changed: u64,
}

impl Conflict {
    fn check(statement: &'static str, planned: usize, changed: u64) -> Result<(), BatchError> {
        if changed == planned as u64 {
            return Ok(());
        }
        Err(BatchError::Retry(Box::new(Self {
            statement,
            planned,
            changed,
        })))
    }
}

pub struct PgBatch {
    transaction: Transaction<'static, Postgres>,
    alarm: PartitionAlarm,
    cache: Cache,
}

impl PgBatch {
    pub(super) fn new(
        transaction: Transaction<'static, Postgres>,
        alarm: PartitionAlarm,
        cache: Cache,
    ) -> Self {
        Self {
            transaction,
            alarm,
            cache,
        }
    }

    async fn write(&mut self, plan: &Plan) -> Result<(), BatchError> {
        let connection = &mut *self.transaction;
        start(connection, &plan.starts).await?;
        advance(connection, &plan.updates).await?;
        end(connection, &plan.ends).await?;
        action::insert(connection, &plan.actions).await?;
        action::settle(connection, &plan.settled).await?;
        Ok(())
    }
}

#[async_trait]
impl SagaBatch for PgBatch {
    async fn load(&mut self, sagas: &[SagaId], actions: &[Uuid]) -> Result<Loaded, BatchError> {
        let connection = &mut *self.transaction;
        let known = self.cache.take(sagas);
        let mut loaded = load_live(connection, sagas, known).await?;
        let live: BTreeSet<SagaId> = loaded.live.iter().map(|row| row.instance.id).collect();
        let missing: Vec<Uuid> = sagas
            .iter()
            .filter(|id| !live.contains(id))
            .map(|id| id.0)
            .collect();
        loaded.ended = load_ended(connection, &missing).await?;
        if !actions.is_empty() {
            loaded.decided = action::decided(connection, actions).await?;
        }
        Ok(loaded)
    }

    async fn definition(
        &mut self,
        hash: &DefinitionHash,
    ) -> Result<Option<SagaDefinition>, BatchError> {
        definition::by_hash(&mut self.transaction, hash)
            .await
            .map_err(|error| BatchError::Retry(Box::new(error)))
    }

    async fn commit(mut self, plan: &Plan) -> Result<(), BatchError> {
        if let Err(error) = self.write(plan).await {
            self.alarm.look_at(&error);
            return Err(error);
        }
        self.transaction.commit().await?;
        self.cache.put(plan);
        Ok(())
    }
}

/// Locks the rows, and reads those whose version is not the one that is known. The clock is read behind the locks: a
/// saga's instants never run backwards from one batch to the next.
pub const LOAD_LIVE: &str = "WITH locked AS (
  SELECT s.id, s.version, s.start_hash, CASE WHEN s.version <> k.version THEN s.state END AS state
  FROM unnest($1::uuid[], $2::bigint[]) AS k(id, version) JOIN saga s ON s.id = ANY(ARRAY[k.id])
  ORDER BY k.id FOR UPDATE OF s
)
SELECT date_trunc('milliseconds', clock_timestamp()) AS at,
  (SELECT starts_from_ms FROM floor WHERE singleton) AS starts_from, l.id, l.version, l.start_hash, l.state
FROM (SELECT 1) AS once LEFT JOIN locked l ON true ORDER BY l.id";

/// Of a saga of which nothing is known: no row has it.
const NO_VERSION: i64 = 0;

type LiveColumns = (
    DateTime<Utc>,
    i64,
    Option<Uuid>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Json<SagaInstance>>,
);

async fn load_live(
    connection: &mut PgConnection,
    sagas: &[SagaId],
    mut known: HashMap<SagaId, LiveRow>,
) -> Result<Loaded, sqlx::Error> {
    let ids: Vec<Uuid> = sagas.iter().map(|id| id.0).collect();
    let version = |id| known.get(id).map_or(NO_VERSION, |row| row.version);
    let versions: Vec<i64> = sagas.iter().map(version).collect();
    let rows: Vec<LiveColumns> = sqlx::query_as(LOAD_LIVE)
        .bind(&ids)
        .bind(versions)
        .fetch_all(connection)
        .await?;
    let mut loaded = Loaded::default();
    for (at, starts_from_ms, id, version, start_hash, state) in rows {
        loaded.now = loaded.now.max(at);
        loaded.starts_from = DateTime::from_timestamp_millis(starts_from_ms);
        let (Some(id), Some(version), Some(start_hash)) = (id, version, start_hash) else {
            continue;
        };
        let row = match state {
            Some(Json(instance)) => Some(LiveRow {
                instance,
                version,
                start_hash,
            }),
            None => known.remove(&SagaId(id)),
        };
        loaded.live.extend(row);
    }
    Ok(loaded)
}

pub const LOAD_ENDED: &str = "SELECT start_hash, state FROM saga_history
WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3";

/// `ids` in order.
async fn load_ended(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<EndedRow>, sqlx::Error> {
    let (Some(least), Some(greatest)) = (ids.first(), ids.last()) else {
        return Ok(Vec::new());
    };
    let rows: Vec<(Vec<u8>, Json<SagaInstance>)> = sqlx::query_as(LOAD_ENDED)
        .bind(ids)
        .bind(least)
        .bind(greatest)
        .fetch_all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(start_hash, Json(instance))| EndedRow {
            instance,
            start_hash,
        })
        .collect())
}

pub const START: &str = "INSERT INTO saga (
  id, version, home_partition, definition, definition_version, definition_hash, status, waiting_kind, waiting_on,
  waiting_since, attempt, next_due, last_error, business_key, correlation_id, start_hash, started_at, state, queued)
SELECT id, 1, home_partition, definition, definition_version, definition_hash, status, waiting_kind, waiting_on,
  waiting_since, attempt, next_due, last_error, business_key, correlation_id, start_hash, started_at, state::json,
  queued::json
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::timestamptz[],
  $8::text[], $9::text[], $10::text[], $11::integer[], $12::text[], $13::integer[], $14::text[], $15::text[],
  $16::text[], $17::bytea[], $18::timestamptz[])
  AS u(id, status, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error, state, queued,
  home_partition, definition, definition_version, definition_hash, business_key, correlation_id, start_hash, started_at)
ORDER BY id ON CONFLICT (id) DO NOTHING";

/// A following statement, with a snapshot of its own: a rival may have ended the saga since we looked.
pub const REMOVE_ENDED: &str = "DELETE FROM saga WHERE id = ANY (ARRAY(
  SELECT h.id FROM saga_history h WHERE h.id = ANY($1::uuid[]) AND h.id BETWEEN $2 AND $3))";

async fn start(connection: &mut PgConnection, rows: &[SagaRow]) -> Result<(), BatchError> {
    let columns = Columns::of(rows)?;
    let ids = columns.ids.clone();
    let (Some(least), Some(greatest)) = (ids.first(), ids.last()) else {
        return Ok(());
    };
    let by = |pick: fn(&SagaInstance) -> &str| -> Vec<&str> {
        rows.iter().map(|row| pick(&row.instance)).collect()
    };
    let homes: Vec<i32> = rows.iter().map(|row| row.instance.home_partition).collect();
    let versions: Vec<i32> = rows
        .iter()
        .map(|row| row.instance.definition_version.cast_signed())
        .collect();
    let keys: Vec<Option<&str>> = rows
        .iter()
        .map(|row| row.instance.business_key.as_deref())
        .collect();
    let hashes: Vec<&[u8]> = rows.iter().map(|row| row.start_hash.as_slice()).collect();
    let started: Vec<DateTime<Utc>> = rows.iter().map(|row| row.instance.started_at).collect();
    let inserted = columns
        .bind(sqlx::query(START))
        .bind(homes)
        .bind(by(|instance| &instance.definition))
        .bind(versions)
        .bind(by(|instance| &instance.definition_hash.0))
        .bind(keys)
        .bind(by(|instance| &instance.trace.correlation_id))
        .bind(hashes)
        .bind(started)
        .execute(&mut *connection)
        .await?;
    Conflict::check("a start", rows.len(), inserted.rows_affected())?;
    let removed = sqlx::query(REMOVE_ENDED)
        .bind(&ids)
        .bind(least)
        .bind(greatest)
        .execute(connection)
        .await?;
    Conflict::check(
        "removing starts that have ended",
        0,
        removed.rows_affected(),
    )
}

pub const ADVANCE: &str = "UPDATE saga s SET
  version = s.version + 1, status = u.status, waiting_kind = u.waiting_kind, waiting_on = u.waiting_on,
  waiting_since = u.waiting_since, attempt = u.attempt, next_due = u.next_due, last_error = u.last_error,
  state = u.state::json, queued = u.queued::json
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::timestamptz[],
  $8::text[], $9::text[], $10::text[], $11::bigint[])
  AS u(id, status, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error, state, queued, version)
WHERE s.id = ANY(ARRAY[u.id]) AND s.version = u.version";

async fn advance(connection: &mut PgConnection, rows: &[SagaRow]) -> Result<(), BatchError> {
    if rows.is_empty() {
        return Ok(());
    }
    let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
    let updated = Columns::of(rows)?
        .bind(sqlx::query(ADVANCE))
        .bind(versions)
        .execute(connection)
        .await?;
    Conflict::check("an update", rows.len(), updated.rows_affected())
}

pub const END: &str = "WITH ended AS (
  DELETE FROM saga s USING unnest($1::uuid[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[])
    AS u(id, version, status, ended_at, state)
  WHERE s.id = ANY(ARRAY[u.id]) AND s.version = u.version
  RETURNING s.id, s.definition, s.definition_version, s.definition_hash, u.status, s.business_key, s.correlation_id,
    s.start_hash, s.started_at, u.ended_at, u.state::json
)
INSERT INTO saga_history (
  id, definition, definition_version, definition_hash, status, business_key, correlation_id, start_hash, started_at,
  ended_at, state)
SELECT * FROM ended";

async fn end(connection: &mut PgConnection, rows: &[SagaRow]) -> Result<(), BatchError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.instance.id.0).collect();
    let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
    let statuses: Vec<&str> = rows
        .iter()
        .map(|row| row.instance.status.as_str())
        .collect();
    let ended: Vec<DateTime<Utc>> = rows.iter().map(|row| row.instance.changed_at).collect();
    let states = states(rows)?;
    let moved = sqlx::query(END)
        .bind(ids)
        .bind(versions)
        .bind(statuses)
        .bind(ended)
        .bind(states)
        .execute(connection)
        .await?;
    Conflict::check("an end", rows.len(), moved.rows_affected())
}

/// As text: what is sent as JSON, the driver sends as `jsonb`.
fn states(rows: &[SagaRow]) -> Result<Vec<String>, sqlx::Error> {
    rows.iter().map(|row| text(&row.instance)).collect()
}

/// Of a saga without a queued command, nothing.
fn queued(rows: &[SagaRow]) -> Result<Vec<Option<String>>, sqlx::Error> {
    rows.iter()
        .map(|row| Some(&row.queued).filter(|queued| !queued.is_empty()))
        .map(|queued| queued.map(text).transpose())
        .collect()
}

fn text(of: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(of).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The columns that both a start and an update write, one array each.
struct Columns<'a> {
    ids: Vec<Uuid>,
    statuses: Vec<&'a str>,
    waiting_kinds: Vec<&'a str>,
    waiting_on: Vec<Option<&'a str>>,
    waiting_since: Vec<DateTime<Utc>>,
    attempts: Vec<Option<i32>>,
    next_due: Vec<Option<DateTime<Utc>>>,
    last_errors: Vec<Option<&'a str>>,
    states: Vec<String>,
    queued: Vec<Option<String>>,
}

type Query<'q> = sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments>;

impl<'a> Columns<'a> {
    fn of(rows: &'a [SagaRow]) -> Result<Self, sqlx::Error> {
        let waiting = || rows.iter().map(|row| &row.waiting);
        Ok(Self {
            ids: rows.iter().map(|row| row.instance.id.0).collect(),
            statuses: rows
                .iter()
                .map(|row| row.instance.status.as_str())
                .collect(),
            waiting_kinds: waiting().map(|waiting| waiting.kind).collect(),
            waiting_on: waiting()
                .map(|waiting| waiting.participant.as_deref())
                .collect(),
            waiting_since: waiting().map(|waiting| waiting.since).collect(),
            attempts: waiting()
                .map(|waiting| waiting.attempt.map(u32::cast_signed))
                .collect(),
            next_due: rows.iter().map(|row| row.next_due).collect(),
            last_errors: rows.iter().map(|row| row.last_error.as_deref()).collect(),
            states: states(rows)?,
            queued: queued(rows)?,
        })
    }

    /// As `$1` to `$10`.
    fn bind<'q>(self, query: Query<'q>) -> Query<'q>
    where
        'a: 'q,
    {
        query
            .bind(self.ids)
            .bind(self.statuses)
            .bind(self.waiting_kinds)
            .bind(self.waiting_on)
            .bind(self.waiting_since)
            .bind(self.attempts)
            .bind(self.next_due)
            .bind(self.last_errors)
            .bind(self.states)
            .bind(self.queued)
    }
}
