//! One batch of inputs, under optimistic concurrency control.
//!
//! ```text
//!  cache ─▶ what this process wrote last ─┐
//!  READ  ─▶ the others, clock, floor ─────┴▶ decide ─▶ START, CHANGE: versions and floor compared, all or nothing
//! ```
//!
//! What does not come out as planned is an error within its statement (`rows_as_planned`, SQLSTATE 40001), so that a
//! statement alone is a transaction: a batch whose sagas are known, and of which none starts, is one round trip.

use super::{PgStore, action, definition};
use crate::engine::{
    cache::Unread,
    db_clock::TOLD_FOR,
    saga_store::{EndedRow, LiveRow, Loaded, Plan, SagaBatch, SagaRow},
};
use async_trait::async_trait;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use saga_core::{
    definition::{DefinitionHash, SagaDefinition},
    ids::SagaId,
    instance::SagaInstance,
};
use saga_messaging::rule::BatchError;
use serde::Serialize;
use sqlx::{Connection, PgConnection, Postgres, pool::PoolConnection, types::Json};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// As the tables keep instants.
const MILLISECOND: TimeDelta = TimeDelta::milliseconds(1);

pub struct PgBatch {
    store: PgStore,
    connection: Option<PoolConnection<Postgres>>,
    unread: Unread,
}

impl PgBatch {
    pub(super) fn new(store: PgStore) -> Self {
        Self {
            store,
            connection: None,
            unread: Unread::default(),
        }
    }

    /// Only taken when there is something to ask.
    async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.pool.acquire().await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// What is read; what is known is not. The actions first: one that is decided in between stands in its saga's state.
    async fn read(&mut self, sagas: &[Uuid], actions: &[Uuid]) -> Result<Loaded, sqlx::Error> {
        let connection = self.connection().await?;
        let decided = if actions.is_empty() {
            HashSet::new()
        } else {
            action::decided(connection, actions).await?
        };
        let loaded = read(connection, sagas).await?;
        Ok(Loaded { decided, ..loaded })
    }

    async fn write(&mut self, plan: &Plan) -> Result<(), BatchError> {
        let left_alone = std::mem::take(&mut self.unread).left_alone(plan);
        let changes = Changes {
            plan,
            left_alone: &left_alone,
        };
        if plan.starts.is_empty() && plan.actions.is_empty() && plan.settled.is_empty() {
            if !changes.is_empty() {
                changes.write(self.connection().await?).await?;
            }
            return Ok(());
        }
        let mut tx = self.connection().await?.begin().await?;
        start(&mut tx, &plan.starts).await?;
        if !changes.is_empty() {
            changes.write(&mut tx).await?;
        }
        action::insert(&mut tx, &plan.actions).await?;
        action::settle(&mut tx, &plan.settled).await?;
        tx.commit().await?;
        Ok(())
    }
}

#[async_trait]
impl SagaBatch for PgBatch {
    async fn load(&mut self, sagas: &[SagaId], actions: &[Uuid]) -> Result<Loaded, BatchError> {
        let known = self.store.cache.split(sagas);
        self.unread = known.unread();
        let told = self.store.clock.now_if_asked_within(TOLD_FOR);
        let mut loaded = match told.and_then(|now| now.duration_trunc(MILLISECOND).ok()) {
            Some(now) if known.unknown.is_empty() && actions.is_empty() => Loaded {
                now,
                ..Loaded::default()
            },
            Some(_) | None => {
                let unknown: Vec<Uuid> = known.unknown.iter().map(|id| id.0).collect();
                let loaded = self.read(&unknown, actions).await?;
                self.store.clock.set(loaded.now);
                loaded
            }
        };
        known.join(&mut loaded);
        Ok(loaded)
    }

    async fn definition(
        &mut self,
        hash: &DefinitionHash,
    ) -> Result<Option<SagaDefinition>, BatchError> {
        definition::by_hash(self.connection().await?, hash)
            .await
            .map_err(|error| BatchError::Retry(Box::new(error)))
    }

    async fn commit(mut self, plan: &Plan) -> Result<(), BatchError> {
        if let Err(error) = self.write(plan).await {
            self.store.alarm.look_at(&error);
            return Err(error);
        }
        self.store.cache.put(plan);
        Ok(())
    }
}

/// The clock behind the rows: whoever wrote them read it earlier. One snapshot, so that a saga that is just ending is
/// found on one side.
pub const READ: &str = "SELECT date_trunc('milliseconds', clock_timestamp()) AS at,
  (SELECT starts_from_ms FROM floor WHERE singleton) AS starts_from, r.id, r.version, r.start_hash, r.state
FROM (SELECT 1) AS once LEFT JOIN (
  SELECT s.id, s.version, s.start_hash, s.state FROM saga s WHERE s.id = ANY($1::uuid[])
  UNION ALL
  SELECT h.id, NULL, h.start_hash, h.state FROM saga_history h WHERE h.id = ANY($1::uuid[]) AND h.id BETWEEN $2 AND $3
) AS r ON true";

/// `version` is of a live one.
type ReadColumns = (
    DateTime<Utc>,
    i64,
    Option<Uuid>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Json<SagaInstance>>,
);

/// `ids` in order.
async fn read(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Loaded, sqlx::Error> {
    let rows: Vec<ReadColumns> = sqlx::query_as(READ)
        .bind(ids)
        .bind(ids.first())
        .bind(ids.last())
        .fetch_all(connection)
        .await?;
    let mut loaded = Loaded::default();
    for (at, starts_from_ms, _, version, start_hash, state) in rows {
        loaded.now = loaded.now.max(at);
        loaded.starts_from = DateTime::from_timestamp_millis(starts_from_ms);
        let (Some(start_hash), Some(Json(instance))) = (start_hash, state) else {
            continue;
        };
        match version {
            Some(version) => loaded.live.push(LiveRow {
                instance,
                version,
                start_hash,
            }),
            None => loaded.ended.push(EndedRow {
                instance,
                start_hash,
            }),
        }
    }
    Ok(loaded)
}

/// None at all if one of them is below the floor by now.
pub const START: &str = "WITH started AS (
INSERT INTO saga (
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
WHERE (SELECT starts_from_ms FROM floor WHERE singleton) <= $19
ORDER BY id ON CONFLICT (id) DO NOTHING RETURNING 1
)
SELECT rows_as_planned('starting sagas', cardinality($1), (SELECT count(*) FROM started))";

async fn start(connection: &mut PgConnection, rows: &[SagaRow]) -> Result<(), BatchError> {
    let Some(oldest) = rows.first() else {
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
    Columns::of(rows)?
        .bind(sqlx::query(START))
        .bind(homes)
        .bind(by(|instance| &instance.definition))
        .bind(versions)
        .bind(by(|instance| &instance.definition_hash.0))
        .bind(keys)
        .bind(by(|instance| &instance.trace.correlation_id))
        .bind(hashes)
        .bind(started)
        .bind(oldest.instance.id.created_at_ms())
        .execute(connection)
        .await?;
    Ok(())
}

macro_rules! change {
    ($first:literal) => {
        concat!(
            "WITH advanced AS (
UPDATE saga s SET
  version = s.version + 1, status = u.status, waiting_kind = u.waiting_kind, waiting_on = u.waiting_on,
  waiting_since = u.waiting_since, attempt = u.attempt, next_due = u.next_due, last_error = u.last_error,
  state = u.state::json, queued = u.queued::json
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::timestamptz[],
  $8::text[], $9::text[], $10::text[], $11::bigint[])
  AS u(id, status, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error, state, queued, version)
WHERE s.id = ANY(ARRAY[u.id]) AND s.version = u.version
RETURNING 1
), ended AS (
DELETE FROM saga s USING unnest($12::uuid[], $13::bigint[], $14::text[], $15::timestamptz[], $16::text[])
  AS u(id, version, status, ended_at, state)
WHERE s.id = ANY(ARRAY[u.id]) AND s.version = u.version
RETURNING s.id, s.definition, s.definition_version, s.definition_hash, u.status, s.business_key, s.correlation_id,
  s.start_hash, s.started_at, u.ended_at, u.state::json
), kept AS (
INSERT INTO saga_history (
  id, definition, definition_version, definition_hash, status, business_key, correlation_id, start_hash, started_at,
  ended_at, state)
SELECT * FROM ended RETURNING 1
)
SELECT ",
            $first,
            "rows_as_planned('advancing sagas', cardinality($1), (SELECT count(*) FROM advanced)),
  rows_as_planned('ending sagas', cardinality($12), (SELECT count(*) FROM kept)),
  rows_as_planned('leaving sagas alone', cardinality($17::uuid[]), (
    SELECT count(*) FROM unnest($17::uuid[], $18::bigint[]) AS u(id, version)
    JOIN saga s ON s.id = ANY(ARRAY[u.id]) AND s.version = u.version))"
        )
    };
}

/// What a plan changes of sagas that stand there, and what it leaves alone. Alone, it is a transaction.
///
/// It locks what it advances, then what it ends, each in id order: rivals that hold the same sagas may wait for each other
/// in a ring, which costs one of them a second and another try.
pub const CHANGE: &str = change!("");

/// The same behind starts, so with a snapshot of its own: a rival may have ended one of them since we looked. Asked first,
/// since one that ends with this plan could not be put beside it.
pub const CHANGE_BEHIND_STARTS: &str = change!(
    "rows_as_planned('finding starts that have ended', 0, (
    SELECT count(*) FROM saga_history h WHERE h.id = ANY($19::uuid[]) AND h.id BETWEEN $20 AND $21)),
  "
);

struct Changes<'a> {
    plan: &'a Plan,
    left_alone: &'a BTreeMap<SagaId, i64>,
}

impl Changes<'_> {
    fn is_empty(&self) -> bool {
        let plan = self.plan;
        plan.starts.is_empty()
            && plan.updates.is_empty()
            && plan.ends.is_empty()
            && self.left_alone.is_empty()
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Plan {
            starts,
            updates,
            ends,
            ..
        } = self.plan;
        let versions =
            |rows: &[SagaRow]| -> Vec<i64> { rows.iter().map(|row| row.version).collect() };
        let ended: Vec<&str> = ends
            .iter()
            .map(|row| row.instance.status.as_str())
            .collect();
        let ended_at: Vec<DateTime<Utc>> = ends.iter().map(|row| row.instance.changed_at).collect();
        let (alone, alone_at): (Vec<Uuid>, Vec<i64>) = self
            .left_alone
            .iter()
            .map(|(id, version)| (id.0, *version))
            .unzip();
        let started = ids(starts);
        let bind = |statement| -> Result<Query<'_>, sqlx::Error> {
            Ok(Columns::of(updates)?
                .bind(sqlx::query(statement))
                .bind(versions(updates))
                .bind(ids(ends))
                .bind(versions(ends))
                .bind(ended)
                .bind(ended_at)
                .bind(states(ends)?)
                .bind(alone)
                .bind(alone_at))
        };
        let query = match (started.first().copied(), started.last().copied()) {
            (Some(least), Some(greatest)) => bind(CHANGE_BEHIND_STARTS)?
                .bind(started)
                .bind(least)
                .bind(greatest),
            _ => bind(CHANGE)?,
        };
        query.execute(connection).await?;
        Ok(())
    }
}

fn ids(rows: &[SagaRow]) -> Vec<Uuid> {
    rows.iter().map(|row| row.instance.id.0).collect()
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
            ids: ids(rows),
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
