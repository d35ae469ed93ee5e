//! Starts that arrive over HTTP. No message has started these sagas, so their starts are in the outbox before they are
//! accepted.

use crate::engine::saga_store::BusinessKeyOf;
use saga_core::{ids::SagaId, message::OutgoingRecord};
use saga_messaging::outbox::{Outbox, OutboxError, StagedBatch};
use sqlx::{PgConnection, PgPool};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;
use uuid::Uuid;

/// A request to start a saga.
#[derive(Clone, Debug)]
pub struct Intake {
    pub saga: SagaId,
    pub record: OutgoingRecord,
    /// The caller's idempotency key, and the SHA-256 of the request's content.
    pub idempotency: Option<(String, Vec<u8>)>,
    /// The generation of the definition table when the definition was chosen.
    pub generation: i64,
    /// The business key that no other live saga may have.
    pub own_key: Option<BusinessKeyOf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The saga was started by this request, or by an earlier one with the same key and content.
    Saga(SagaId),
    /// The key was used for a request with other content.
    OtherContent,
    /// The definition table has changed since the definition was chosen.
    OutOfDate,
    /// This saga holds the business key, or will hold it once its start is read.
    KeyTaken(SagaId),
}

#[derive(Debug, Error)]
pub enum IntakeError {
    #[error("the starts could not be written")]
    Database(#[from] sqlx::Error),
    #[error("the starts could not be staged")]
    Outbox(#[from] OutboxError),
}

/// Accepts a batch of requests in one transaction: idempotency rows, claims of business keys, and one outbox row for
/// all starts. The staged batch goes to the relay. The requests are answered only after this, when their starts are
/// durable.
pub async fn accept(
    pool: &PgPool,
    outbox: &Outbox,
    batch: Vec<Intake>,
) -> Result<(Vec<Accepted>, Option<StagedBatch>), IntakeError> {
    let mut transaction = pool.begin().await?;
    let holders = claim_keys(&mut transaction, &batch).await?;
    let generation = generation(&mut transaction).await?;
    let new: Vec<&Intake> = batch
        .iter()
        .filter(|intake| said_before(intake, &holders).is_none())
        .filter(|intake| intake.generation == generation)
        .collect();
    let key_holders = claim_business_keys(&mut transaction, &new).await?;
    let mut answers = Vec::with_capacity(batch.len());
    let mut records = Vec::with_capacity(batch.len());
    let mut refused: BTreeMap<SagaId, (Accepted, Option<String>)> = BTreeMap::new();
    for intake in batch {
        let answer = answer(&intake, &holders, generation, &key_holders);
        match answer {
            Accepted::Saga(id) if id == intake.saga => records.push(intake.record),
            Accepted::OutOfDate | Accepted::KeyTaken(_) => {
                let key = intake.idempotency.map(|(key, _)| key);
                refused.insert(intake.saga, (answer, key));
            }
            Accepted::Saga(_) | Accepted::OtherContent => {}
        }
        // A repetition in the same batch gets the same answer as the first request.
        let first = match answer {
            Accepted::Saga(id) => refused.get(&id).map(|(answer, _)| *answer),
            Accepted::OtherContent | Accepted::OutOfDate | Accepted::KeyTaken(_) => None,
        };
        answers.push(first.unwrap_or(answer));
    }
    forget_refused(&mut transaction, refused).await?;
    let staged = if records.is_empty() {
        None
    } else {
        Some(outbox.stage_owned(&mut *transaction, records).await?)
    };
    transaction.commit().await?;
    Ok((answers, staged))
}

type Holders = HashMap<String, (Vec<u8>, Uuid)>;

/// Returns the answer to an earlier request with the same idempotency key.
fn said_before(intake: &Intake, holders: &Holders) -> Option<Accepted> {
    let (key, hash) = intake.idempotency.as_ref()?;
    let (held, holder) = holders.get(key)?;
    if held != hash {
        return Some(Accepted::OtherContent);
    }
    (*holder != intake.saga.0).then_some(Accepted::Saga(SagaId(*holder)))
}

fn answer(
    intake: &Intake,
    holders: &Holders,
    generation: i64,
    key_holders: &BTreeMap<BusinessKeyOf, SagaId>,
) -> Accepted {
    if let Some(said) = said_before(intake, holders) {
        return said;
    }
    if intake.generation != generation {
        return Accepted::OutOfDate;
    }
    let holder = intake.own_key.as_ref().and_then(|key| key_holders.get(key));
    match holder {
        Some(holder) if *holder != intake.saga => Accepted::KeyTaken(*holder),
        Some(_) | None => Accepted::Saga(intake.saga),
    }
}

async fn generation(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT generation FROM definition_generation WHERE singleton")
        .fetch_one(connection)
        .await
}

/// The time in minutes after which a claim expires. A claim counts until its saga's start is read, and from then on the
/// saga itself counts. If the start was dead-lettered instead, it keeps its business key for this time.
const CLAIM_MINUTES: i32 = 5;

/// Claims the business keys of a batch. Returns the saga that holds each key, which may be the saga that claims it. A
/// start is in the outbox and in the log before its saga is live, so the live sagas do not include every rival. If
/// requests of one batch claim the same key, the first request gets it.
async fn claim_business_keys(
    connection: &mut PgConnection,
    batch: &[&Intake],
) -> Result<BTreeMap<BusinessKeyOf, SagaId>, sqlx::Error> {
    let mut first: BTreeMap<&BusinessKeyOf, Uuid> = BTreeMap::new();
    for intake in batch {
        if let Some(key) = &intake.own_key {
            first.entry(key).or_insert(intake.saga.0);
        }
    }
    if first.is_empty() {
        return Ok(BTreeMap::new());
    }
    let definitions: Vec<&str> = first.keys().map(|(name, _)| name.as_str()).collect();
    let keys: Vec<&str> = first.keys().map(|(_, key)| key.as_str()).collect();
    let sagas: Vec<Uuid> = first.values().copied().collect();
    // The claims are in the order of their keys, so that rivals cannot deadlock.
    sqlx::query(
        "INSERT INTO business_key_claim AS c (definition, business_key, saga_id)
         SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[])
         ON CONFLICT (definition, business_key) DO UPDATE SET saga_id = EXCLUDED.saga_id, claimed_at = clock_timestamp()
         WHERE NOT EXISTS (SELECT FROM saga s WHERE s.id = c.saga_id)
           AND (c.claimed_at < clock_timestamp() - make_interval(mins => $4)
             OR EXISTS (SELECT FROM saga_history h WHERE h.id = c.saga_id))",
    )
    .bind(&definitions)
    .bind(&keys)
    .bind(sagas)
    .bind(CLAIM_MINUTES)
    .execute(&mut *connection)
    .await?;
    // The holders are read after the claims, so that the snapshot shows what rivals have claimed. A saga that was
    // started over Kafka has no claim.
    let rows: Vec<(String, String, Uuid)> = sqlx::query_as(
        "SELECT u.definition, u.business_key, coalesce(
           (SELECT s.id FROM saga s
            WHERE s.definition || '/' || s.business_key = ANY(ARRAY[u.definition || '/' || u.business_key]) AND s.unique_key),
           c.saga_id)
         FROM unnest($1::text[], $2::text[]) AS u(definition, business_key)
         JOIN business_key_claim c ON c.definition = ANY(ARRAY[u.definition]) AND c.business_key = ANY(ARRAY[u.business_key])",
    )
    .bind(definitions)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(definition, key, saga)| ((definition, key), SagaId(saga)))
        .collect())
}

/// Deletes the idempotency keys and the claims of refused requests.
async fn forget_refused(
    connection: &mut PgConnection,
    refused: BTreeMap<SagaId, (Accepted, Option<String>)>,
) -> Result<(), sqlx::Error> {
    if refused.is_empty() {
        return Ok(());
    }
    let sagas: Vec<Uuid> = refused.keys().map(|saga| saga.0).collect();
    let keys: Vec<String> = refused.into_values().filter_map(|(_, key)| key).collect();
    sqlx::query(
        "WITH claims AS (DELETE FROM business_key_claim WHERE saga_id = ANY($1::uuid[]))
         DELETE FROM saga_start_idempotency WHERE key = ANY($2::text[]) AND saga_id = ANY($1::uuid[])",
    )
    .bind(sagas)
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the answer to an earlier request with this idempotency key, if there was one.
pub async fn earlier(
    pool: &PgPool,
    idempotency: Option<&(String, Vec<u8>)>,
) -> Result<Option<Accepted>, sqlx::Error> {
    let Some((key, hash)) = idempotency else {
        return Ok(None);
    };
    let row: Option<(Vec<u8>, Uuid)> =
        sqlx::query_as("SELECT body_hash, saga_id FROM saga_start_idempotency WHERE key = $1")
            .bind(key)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(held, holder)| {
        if held == *hash {
            Accepted::Saga(SagaId(holder))
        } else {
            Accepted::OtherContent
        }
    }))
}

/// Claims the idempotency keys of a batch. Returns for each key the hash and the saga of the request that had it first.
/// If requests of one batch have the same key, the first request gets it.
async fn claim_keys(
    connection: &mut PgConnection,
    batch: &[Intake],
) -> Result<Holders, sqlx::Error> {
    let mut first: HashMap<&str, &Intake> = HashMap::new();
    for intake in batch {
        if let Some((key, _)) = &intake.idempotency {
            first.entry(key).or_insert(intake);
        }
    }
    if first.is_empty() {
        return Ok(HashMap::new());
    }
    // Rivals insert the same keys in the same order, so that they cannot deadlock.
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

/// Deletes at most `limit` idempotency keys that are older than a day, and at most `limit` claims of business keys of
/// that age: by then their saga is live, or its start was dead-lettered. Returns the greater of the two counts.
pub async fn forget_old_keys(pool: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    let mut gone = 0;
    for statement in [
        "DELETE FROM saga_start_idempotency WHERE key IN (
           SELECT key FROM saga_start_idempotency
           WHERE created_at < clock_timestamp() - interval '24 hours'
           ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM business_key_claim WHERE (definition, business_key) IN (
           SELECT definition, business_key FROM business_key_claim
           WHERE claimed_at < clock_timestamp() - interval '24 hours'
           ORDER BY claimed_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    ] {
        let done = sqlx::query(statement).bind(limit).execute(pool).await?;
        gone = done.rows_affected().max(gone);
    }
    Ok(gone)
}
