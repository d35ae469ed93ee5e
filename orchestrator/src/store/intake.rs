//! Starts that came over HTTP: no message started them, so they stand in the outbox before they are accepted.

use saga_core::{ids::SagaId, message::OutgoingRecord};
use saga_messaging::outbox::{Outbox, OutboxError, StagedBatch};
use sqlx::{PgConnection, PgPool};
use std::collections::HashMap;
use thiserror::Error;
use uuid::Uuid;

/// One request.
#[derive(Clone, Debug)]
pub struct Intake {
    pub saga: SagaId,
    pub record: OutgoingRecord,
    /// The caller's key, and the SHA-256 of what it asked.
    pub idempotency: Option<(String, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// By this request, or by one with the same key and content before.
    Saga(SagaId),
    /// The key was used for something else.
    OtherContent,
}

#[derive(Debug, Error)]
pub enum IntakeError {
    #[error("the starts could not be written")]
    Database(#[from] sqlx::Error),
    #[error("the starts could not be staged")]
    Outbox(#[from] OutboxError),
}

/// Accepts a batch in one transaction: idempotency rows, and one outbox row for all. The staged batch goes to the
/// relay; an answer is given only now that it is durable.
pub async fn accept(
    pool: &PgPool,
    outbox: &Outbox,
    batch: Vec<Intake>,
) -> Result<(Vec<Accepted>, Option<StagedBatch>), IntakeError> {
    let mut transaction = pool.begin().await?;
    let holders = claim_keys(&mut transaction, &batch).await?;
    let mut answers = Vec::with_capacity(batch.len());
    let mut records = Vec::with_capacity(batch.len());
    for intake in batch {
        match intake
            .idempotency
            .as_ref()
            .and_then(|(key, hash)| Some((holders.get(key)?, hash)))
        {
            Some(((held, _), hash)) if held != hash => answers.push(Accepted::OtherContent),
            Some(((_, holder), _)) if *holder != intake.saga.0 => {
                answers.push(Accepted::Saga(SagaId(*holder)));
            }
            Some(_) | None => {
                answers.push(Accepted::Saga(intake.saga));
                records.push(intake.record);
            }
        }
    }
    let staged = if records.is_empty() {
        None
    } else {
        Some(outbox.stage_owned(&mut *transaction, records).await?)
    };
    transaction.commit().await?;
    Ok((answers, staged))
}

/// By key: the hash and the saga of whoever had it first. Equal keys of one batch: the first request.
async fn claim_keys(
    connection: &mut PgConnection,
    batch: &[Intake],
) -> Result<HashMap<String, (Vec<u8>, Uuid)>, sqlx::Error> {
    let mut first: HashMap<&str, &Intake> = HashMap::new();
    for intake in batch {
        if let Some((key, _)) = &intake.idempotency {
            first.entry(key).or_insert(intake);
        }
    }
    if first.is_empty() {
        return Ok(HashMap::new());
    }
    // Rivals insert the same keys in the same order.
    let mut claims: Vec<(&str, &[u8], Uuid)> = first
        .values()
        .filter_map(|intake| {
            let (key, hash) = intake.idempotency.as_ref()?;
            Some((key.as_str(), hash.as_slice(), intake.saga.0))
        })
        .collect();
    claims.sort_unstable();
    let keys: Vec<&str> = claims.iter().map(|(key, ..)| *key).collect();
    let hashes: Vec<&[u8]> = claims.iter().map(|(_, hash, _)| *hash).collect();
    let sagas: Vec<Uuid> = claims.iter().map(|(.., saga)| *saga).collect();
    sqlx::query(
        "INSERT INTO saga_start_idempotency (key, body_hash, saga_id)
         SELECT * FROM unnest($1::text[], $2::bytea[], $3::uuid[]) ON CONFLICT (key) DO NOTHING",
    )
    .bind(&keys)
    .bind(hashes)
    .bind(sagas)
    .execute(&mut *connection)
    .await?;
    let rows: Vec<(String, Vec<u8>, Uuid)> = sqlx::query_as(
        "SELECT key, body_hash, saga_id FROM saga_start_idempotency WHERE key = ANY($1::text[])",
    )
    .bind(&keys)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(key, hash, saga)| (key, (hash, saga)))
        .collect())
}

/// Keys are remembered for a day; forgets at most `limit` that are older, and says how many.
pub async fn forget_old_keys(pool: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "DELETE FROM saga_start_idempotency WHERE key IN (
           SELECT key FROM saga_start_idempotency
           WHERE created_at < clock_timestamp() - interval '24 hours'
           ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}
