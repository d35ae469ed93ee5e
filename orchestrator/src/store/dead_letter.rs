//! The decisions about dead letters.

use chrono::{DateTime, Utc};
use saga_core::ids::SagaId;
use saga_messaging::{dead_letter::LetterId, log::Delivered};
use sqlx::{PgConnection, PgPool};

/// The letter that a decision is about: its id, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LetterKey {
    pub id: LetterId,
    pub written_at: DateTime<Utc>,
}

/// A decision about a letter: `replayed` or `discarded`, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub letter_offset: i64,
    pub written_at: DateTime<Utc>,
    pub decision: String,
    pub actor: String,
    pub reason: String,
    pub decided_at: DateTime<Utc>,
    pub corrected: bool,
    pub replayed_partition: Option<i32>,
    pub replayed_offset: Option<i64>,
}

saga_postgres::from_row!(
    Decision: letter_offset, written_at, decision, actor, reason, decided_at, corrected,
    replayed_partition, replayed_offset
);

impl Decision {
    pub const REPLAYED: &str = "replayed";
    pub const DISCARDED: &str = "discarded";
}

/// A decision to write.
#[derive(Clone, Debug)]
pub struct NewDecision {
    pub key: LetterKey,
    pub decision: &'static str,
    pub actor: String,
    pub reason: String,
    pub saga: Option<SagaId>,
    pub corrected: bool,
    pub correlation_id: String,
}

const INSERT: &str = "INSERT INTO dead_letter (
  topic, partition, letter_offset, written_at, decision, actor, reason, saga_id, corrected, correlation_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";

/// Writes a decision about a letter. Returns the earlier decision instead if there is one. A rival waits until the
/// first transaction has ended.
pub async fn decide(
    connection: &mut PgConnection,
    new: &NewDecision,
) -> Result<Option<Decision>, sqlx::Error> {
    let id = &new.key.id;
    let written = sqlx::query(INSERT)
        .bind(&id.topic)
        .bind(id.partition)
        .bind(id.offset)
        .bind(new.key.written_at)
        .bind(new.decision)
        .bind(&new.actor)
        .bind(&new.reason)
        .bind(new.saga.map(|saga| saga.0))
        .bind(new.corrected)
        .bind(&new.correlation_id)
        .execute(&mut *connection)
        .await?;
    if written.rows_affected() == 1 {
        return Ok(None);
    }
    find(connection, &new.key).await
}

const FIND: &str =
    "SELECT letter_offset, written_at, decision, actor, reason, decided_at, corrected,
  replayed_partition, replayed_offset FROM dead_letter
WHERE topic = $1 AND partition = $2 AND letter_offset = $3 AND written_at = $4";

pub async fn find(
    connection: &mut PgConnection,
    key: &LetterKey,
) -> Result<Option<Decision>, sqlx::Error> {
    sqlx::query_as(FIND)
        .bind(&key.id.topic)
        .bind(key.id.partition)
        .bind(key.id.offset)
        .bind(key.written_at)
        .fetch_optional(connection)
        .await
}

/// Records the location of the replayed record.
pub async fn placed(
    connection: &mut PgConnection,
    key: &LetterKey,
    at: Delivered,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE dead_letter SET replayed_partition = $5, replayed_offset = $6
         WHERE topic = $1 AND partition = $2 AND letter_offset = $3 AND written_at = $4",
    )
    .bind(&key.id.topic)
    .bind(key.id.partition)
    .bind(key.id.offset)
    .bind(key.written_at)
    .bind(at.partition)
    .bind(at.offset)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the decisions about the letters between two offsets of a partition, both included.
pub async fn between(
    pool: &PgPool,
    topic: &str,
    partition: i32,
    first: i64,
    last: i64,
) -> Result<Vec<Decision>, sqlx::Error> {
    sqlx::query_as(
        "SELECT letter_offset, written_at, decision, actor, reason, decided_at, corrected, replayed_partition,
           replayed_offset FROM dead_letter
         WHERE topic = $1 AND partition = $2 AND letter_offset BETWEEN $3 AND $4",
    )
    .bind(topic)
    .bind(partition)
    .bind(first)
    .bind(last)
    .fetch_all(pool)
    .await
}

/// Returns the offsets and times of the decided letters of a partition, from an offset on.
pub async fn decided_from(
    pool: &PgPool,
    topic: &str,
    partition: i32,
    first: i64,
) -> Result<Vec<(i64, DateTime<Utc>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT letter_offset, written_at FROM dead_letter
         WHERE topic = $1 AND partition = $2 AND letter_offset >= $3",
    )
    .bind(topic)
    .bind(partition)
    .bind(first)
    .fetch_all(pool)
    .await
}
