//! One batch of inputs, under optimistic concurrency control.
//!
//! ```text
//!  cache ─▶ what this process wrote last ─┐
//!  READ  ─▶ the others, clock, floor ─────┴▶ decide ─▶ START, CHANGE: versions and floor compared, all or nothing
//! ```
//!
//! A statement whose counts differ from the plan fails by itself (`rows_as_planned`, SQLSTATE 40001), so that a single
//! statement is a whole transaction. A batch whose sagas are cached, and in which none starts, therefore takes one
//! round trip.

use super::{action, pg_store::PgStore};
use crate::engine::{
    cache::AssumedVersions,
    saga_store::{BusinessKeyOf, EndedRow, LiveRow, Loaded, Plan, SagaBatch, SagaRow, SagaStore},
};
use async_trait::async_trait;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use saga_core::{ids::SagaId, instance::SagaInstance};
use saga_messaging::consumer::BatchError;
use serde::Serialize;
use sqlx::{Connection, PgConnection, Postgres, pool::PoolConnection, types::Json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use uuid::Uuid;

/// The precision with which the tables store times.
const MILLISECOND: TimeDelta = TimeDelta::milliseconds(1);

#[async_trait]
impl SagaStore for PgStore {
    type Batch = PgBatch;

    async fn begin(&self) -> Result<PgBatch, BatchError> {
        Ok(PgBatch {
            store: self.clone(),
            connection: None,
            unread: AssumedVersions::default(),
        })
    }

    fn forget(&self) {
        self.cache.forget();
    }
}

pub struct PgBatch {
    store: PgStore,
    connection: Option<PoolConnection<Postgres>>,
    unread: AssumedVersions,
}

impl PgBatch {
    /// Returns the batch's connection. It is taken from the pool only when there is a statement to run.
    async fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.pool.acquire().await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Reads only sagas that are not cached. Actions are read first: if one is decided between the two statements, the
    /// saga's state already shows it.
    async fn read(
        &mut self,
        sagas: &[Uuid],
        actions: &[Uuid],
        keys: &BTreeSet<BusinessKeyOf>,
    ) -> Result<Loaded, sqlx::Error> {
        let connection = self.connection().await?;
        let decided = if actions.is_empty() {
            HashSet::new()
        } else {
            action::decided(connection, actions).await?
        };
        let loaded = read(connection, sagas, keys).await?;
        Ok(Loaded { decided, ..loaded })
    }

    async fn write(&mut self, plan: &Plan) -> Result<(), BatchError> {
        let unmodified = std::mem::take(&mut self.unread).unmodified(plan);
        let changes = Changes {
            plan,
            unmodified: &unmodified,
        };
        if plan.starts.is_empty() && plan.actions.is_empty() && plan.settled.is_empty() {
            if !changes.is_empty() {
                changes.write(self.connection().await?).await?;
            }
            return Ok(());
        }
        let mut tx = self.connection().await?.begin().await?;
        start(&mut tx, plan).await?;
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
    async fn load(
        &mut self,
        sagas: &[SagaId],
        actions: &[Uuid],
        keys: &BTreeSet<BusinessKeyOf>,
    ) -> Result<Loaded, BatchError> {
        let known = self.store.cache.split(sagas);
        self.unread = known.unread();
        let extrapolated = self.store.clock.now();
        let mut loaded = match extrapolated.and_then(|now| now.duration_trunc(MILLISECOND).ok()) {
            Some(now) if known.unknown.is_empty() && actions.is_empty() => Loaded {
                now,
                ..Loaded::default()
            },
            Some(_) | None => {
                let unknown: Vec<Uuid> = known.unknown.iter().map(|id| id.0).collect();
                let loaded = self.read(&unknown, actions, keys).await?;
                self.store.clock.set(loaded.now);
                loaded
            }
        };
        known.join(&mut loaded);
        Ok(loaded)
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

/// Reads a batch's sagas, with the clock, the floor of starts and the generation of the definitions. The clock is read
/// after the rows, so it is later than the readings of the processes that wrote them. The statement uses one snapshot,
/// so that a saga that is just ending is found in exactly one of the tables. The requested sagas are followed by those
/// that hold one of the requested business keys. Each key has a subquery of its own, whose order only its index has: a
/// plain join would compare every key with every saga if the table was nearly empty at its last ANALYZE.
pub const READ: &str = "SELECT date_trunc('milliseconds', clock_timestamp()) AS at,
  (SELECT starts_from_ms FROM floor WHERE singleton) AS starts_from,
  (SELECT generation FROM definition_generation WHERE singleton) AS generation,
  r.id, r.version, r.start_hash, r.state, r.definition, r.business_key
FROM (SELECT 1) AS once LEFT JOIN (
  SELECT s.id, s.version, s.start_hash, s.state, NULL AS definition, NULL AS business_key
  FROM saga s WHERE s.id = ANY($1::uuid[])
  UNION ALL
  SELECT h.id, NULL, h.start_hash, h.state, NULL, NULL
  FROM saga_history h WHERE h.id = ANY($1::uuid[]) AND h.id BETWEEN $2 AND $3
  UNION ALL
  SELECT k.id, NULL, NULL, NULL, u.definition, u.business_key
  FROM unnest($4::text[], $5::text[]) AS u(definition, business_key)
  CROSS JOIN LATERAL (
    SELECT id FROM saga
    WHERE saga.definition || '/' || saga.business_key = ANY(ARRAY[u.definition || '/' || u.business_key]) AND unique_key
    ORDER BY saga.definition || '/' || saga.business_key LIMIT 1) AS k
) AS r ON true";

/// The columns of [`READ`]. `version` is set for live sagas only.
type ReadColumns = (
    DateTime<Utc>,
    i64,
    i64,
    Option<Uuid>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Json<SagaInstance>>,
    Option<String>,
    Option<String>,
);

/// Runs [`READ`]. `ids` must be in order.
async fn read(
    connection: &mut PgConnection,
    ids: &[Uuid],
    keys: &BTreeSet<BusinessKeyOf>,
) -> Result<Loaded, sqlx::Error> {
    let (definitions, keys): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(definition, key)| (definition.as_str(), key.as_str()))
        .unzip();
    let rows: Vec<ReadColumns> = sqlx::query_as(READ)
        .bind(ids)
        .bind(ids.first())
        .bind(ids.last())
        .bind(definitions)
        .bind(keys)
        .fetch_all(connection)
        .await?;
    let mut loaded = Loaded::default();
    for (at, starts_from_ms, generation, id, version, start_hash, state, definition, key) in rows {
        loaded.now = loaded.now.max(at);
        loaded.starts_from = DateTime::from_timestamp_millis(starts_from_ms);
        loaded.generation = Some(generation);
        if let (Some(id), Some(definition), Some(key)) = (id, definition, key) {
            loaded.holders.insert((definition, key), SagaId(id));
        }
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

/// Inserts the sagas that start. Fails and inserts none of them if one is live already or is now below the floor of
/// starts, if another saga holds the business key of one, or if the definition table is at another generation than the
/// one from which the versions were chosen.
pub const START: &str = "WITH started AS (
INSERT INTO saga (
  id, version, home_partition, definition, definition_version, definition_hash, status, waiting_kind, waiting_on,
  waiting_since, attempt, next_due, last_error, business_key, correlation_id, start_hash, started_at, state, queued,
  unique_key)
SELECT id, 1, home_partition, definition, definition_version, definition_hash, status, waiting_kind, waiting_on,
  waiting_since, attempt, next_due, last_error, business_key, correlation_id, start_hash, started_at, state::json,
  queued::json, unique_key
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::timestamptz[],
  $8::text[], $9::text[], $10::text[], $11::integer[], $12::text[], $13::integer[], $14::text[], $15::text[],
  $16::text[], $17::bytea[], $18::timestamptz[], $19::boolean[])
  AS u(id, status, waiting_kind, waiting_on, waiting_since, attempt, next_due, last_error, state, queued,
  home_partition, definition, definition_version, definition_hash, business_key, correlation_id, start_hash, started_at,
  unique_key)
WHERE (SELECT starts_from_ms FROM floor WHERE singleton) <= $20
  AND (SELECT generation FROM definition_generation WHERE singleton) = $21
ORDER BY id ON CONFLICT DO NOTHING RETURNING 1
)
SELECT rows_as_planned('starting sagas', cardinality($1), (SELECT count(*) FROM started))";

async fn start(connection: &mut PgConnection, plan: &Plan) -> Result<(), BatchError> {
    let rows = plan.starts.as_slice();
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
    let unique: Vec<bool> = rows.iter().map(|row| row.has_key_to_itself).collect();
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
        .bind(unique)
        .bind(oldest.instance.id.created_at_ms())
        .bind(plan.generation)
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

/// Writes what a plan changes of live sagas, and compares the versions of the sagas that it does not write. On its own,
/// the statement is a whole transaction.
///
/// The statement locks the sagas that it advances and then those that it ends, each in id order. Rivals with the same
/// sagas may therefore deadlock, which costs one of them a second and another try.
pub const CHANGE: &str = change!("");

/// The same statement after the starts of a transaction, and so with a snapshot of its own. A rival may have ended one
/// of the started sagas since the batch read them. This is checked first, because a saga that ends with this plan could
/// not be inserted into history a second time.
pub const CHANGE_BEHIND_STARTS: &str = change!(
    "rows_as_planned('finding starts that have ended', 0, (
    SELECT count(*) FROM saga_history h WHERE h.id = ANY($19::uuid[]) AND h.id BETWEEN $20 AND $21)),
  "
);

struct Changes<'a> {
    plan: &'a Plan,
    unmodified: &'a BTreeMap<SagaId, i64>,
}

impl Changes<'_> {
    fn is_empty(&self) -> bool {
        let plan = self.plan;
        plan.starts.is_empty()
            && plan.updates.is_empty()
            && plan.ends.is_empty()
            && self.unmodified.is_empty()
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
            .unmodified
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

/// Returns the states as text, because sqlx sends JSON values as `jsonb`.
fn states(rows: &[SagaRow]) -> Result<Vec<String>, sqlx::Error> {
    rows.iter().map(|row| text(&row.instance)).collect()
}

/// Returns the queued commands of each saga as text, or `None` for a saga without queued commands.
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

    /// Binds the columns as `$1` to `$10`.
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
