//! The statements on the barrier's rows.

use super::{Keys, from_json, key, to_json, undecodable};
use crate::{
    barrier::{BarrierRow, RowKey},
    storage::{BarrierSnapshot, TxContext},
};
use saga_core::{barrier::Mark, ids::Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

fn mark_code(mark: Mark) -> &'static str {
    match mark {
        Mark::Pending => "P",
        Mark::Done => "D",
        Mark::Failed => "X",
        Mark::Refused => "R",
    }
}

fn mark(code: &str) -> Result<Mark, sqlx::Error> {
    [Mark::Pending, Mark::Done, Mark::Failed, Mark::Refused]
        .into_iter()
        .find(|mark| mark_code(*mark) == code)
        .ok_or_else(|| undecodable(&format!("mark '{code}'")))
}

/// The transaction's context, and a row of the barrier if there is one.
struct Row {
    now: Timestamp,
    own_ms: i64,
    seen_ms: i64,
    saga_id: Option<Uuid>,
    step: Option<String>,
    direction: Option<String>,
    mark: Option<String>,
    reply: Option<String>,
    handled_at: Option<Timestamp>,
}

saga_postgres::from_row!(Row: now, own_ms, seen_ms, saga_id, step, direction, mark, reply, handled_at);

impl Row {
    /// Returns `None` if there is only the context.
    fn decode(self) -> Option<Result<(RowKey, BarrierRow), sqlx::Error>> {
        let saga_id = self.saga_id?;
        let (Some(step), Some(direction), Some(code), Some(handled_at)) =
            (self.step, self.direction, self.mark, self.handled_at)
        else {
            return Some(Err(undecodable(&format!("a row of saga {saga_id}"))));
        };
        let decode = || {
            let entry = BarrierRow {
                mark: mark(&code)?,
                reply: self.reply.as_deref().map(from_json).transpose()?,
                handled_at,
            };
            Ok((key(saga_id, step, &direction)?, entry))
        };
        Some(decode())
    }
}

pub const READ: &str = "SELECT clock_timestamp() AS now, f.own_ms, f.seen_ms, i.saga_id, i.step,
  i.direction::text, i.mark::text, i.reply::text, i.handled_at
FROM saga_floor f LEFT JOIN inbox i ON i.saga_id = ANY($1) AND i.saga_id BETWEEN $2 AND $3
WHERE f.singleton";

/// Reads all rows of these sagas and the transaction's context; `ids` must be sorted.
pub async fn read(tx: &mut PgConnection, ids: &[Uuid]) -> Result<BarrierSnapshot, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(READ)
        .bind(ids)
        .bind(ids.first())
        .bind(ids.last())
        .fetch_all(tx)
        .await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let terms = TxContext {
        now: first.now,
        own_floor_ms: first.own_ms,
        seen_floor_ms: first.seen_ms,
    };
    let rows = rows.into_iter().filter_map(Row::decode);
    Ok(BarrierSnapshot {
        terms,
        rows: rows.collect::<Result<_, _>>()?,
    })
}

struct Columns {
    keys: Keys,
    marks: Vec<&'static str>,
    replies: Vec<Option<String>>,
    times: Vec<Timestamp>,
}

impl Columns {
    fn of(rows: &[(&RowKey, &BarrierRow)]) -> Result<Self, sqlx::Error> {
        let reply = |entry: &BarrierRow| entry.reply.as_ref().map(to_json).transpose();
        Ok(Self {
            keys: Keys::of(rows.iter().map(|(key, _)| *key)),
            marks: rows
                .iter()
                .map(|(_, entry)| mark_code(entry.mark))
                .collect(),
            replies: rows
                .iter()
                .map(|(_, entry)| reply(entry))
                .collect::<Result<_, _>>()?,
            times: rows.iter().map(|(_, entry)| entry.handled_at).collect(),
        })
    }
}

/// Inserts rows and returns their number. It is less than given if a concurrent transaction was first.
pub async fn insert(
    tx: &mut PgConnection,
    rows: &[(&RowKey, &BarrierRow)],
) -> Result<u64, sqlx::Error> {
    let columns = Columns::of(rows)?;
    let done = sqlx::query(
        "INSERT INTO inbox (saga_id, step, direction, mark, reply, handled_at) \
         SELECT u.saga_id, u.step, u.direction::\"char\", u.mark::\"char\", u.reply::json, u.at \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], \
                     $6::timestamptz[]) AS u(saga_id, step, direction, mark, reply, at) \
         ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING",
    )
    .bind(&columns.keys.sagas)
    .bind(&columns.keys.steps)
    .bind(&columns.keys.directions)
    .bind(&columns.marks)
    .bind(&columns.replies)
    .bind(&columns.times)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Writes the outcome of pending rows; no other rows ever change.
pub async fn settle(
    tx: &mut PgConnection,
    rows: &[(&RowKey, &BarrierRow)],
) -> Result<u64, sqlx::Error> {
    let columns = Columns::of(rows)?;
    let done = sqlx::query(
        "UPDATE inbox i SET mark = u.mark::\"char\", reply = u.reply::json, handled_at = u.at \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], \
                     $6::timestamptz[]) AS u(saga_id, step, direction, mark, reply, at) \
         WHERE i.saga_id = ANY(ARRAY[u.saga_id]) AND i.step = u.step AND i.direction = u.direction::\"char\" \
         AND i.mark = 'P'",
    )
    .bind(&columns.keys.sagas)
    .bind(&columns.keys.steps)
    .bind(&columns.keys.directions)
    .bind(&columns.marks)
    .bind(&columns.replies)
    .bind(&columns.times)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes pending rows whose call was definitely not done.
pub async fn release(tx: &mut PgConnection, rows: &[&RowKey]) -> Result<u64, sqlx::Error> {
    let keys = Keys::of(rows.iter().copied());
    let done = sqlx::query(
        "DELETE FROM inbox i \
         USING unnest($1::uuid[], $2::text[], $3::text[]) AS u(saga_id, step, direction) \
         WHERE i.saga_id = ANY(ARRAY[u.saga_id]) AND i.step = u.step AND i.direction = u.direction::\"char\" \
         AND i.mark = 'P'",
    )
    .bind(&keys.sagas)
    .bind(&keys.steps)
    .bind(&keys.directions)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Inserts the rows of a step that the starter has done. An existing row is a mistake of the caller and fails.
pub async fn record_started(
    tx: &mut PgConnection,
    ids: &[Uuid],
    step: &str,
    reply: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO inbox (saga_id, step, direction, mark, reply) \
         SELECT id, $2, 'F', 'D', $3::json FROM unnest($1::uuid[]) AS u(id) ORDER BY id",
    )
    .bind(ids)
    .bind(step)
    .bind(reply)
    .execute(tx)
    .await?;
    Ok(())
}
