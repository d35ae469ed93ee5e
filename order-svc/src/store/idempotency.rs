//! The `idempotency` table: for a day and per customer, the answer that a key was given.

use crate::domain::limits::IDEMPOTENCY_HOURS;
use sqlx::PgConnection;
use uuid::Uuid;

/// A key that a request wants for itself, with the answer it will get if nothing better comes in time.
#[derive(Clone, Debug)]
pub struct Claim {
    pub customer_id: Uuid,
    pub key: String,
    pub request_hash: [u8; 32],
    pub order_id: Uuid,
    pub answer: String,
    pub preference_applied: Option<String>,
    /// For so long the request may still replace its answer.
    pub wait_seconds: u64,
}

/// A key that is taken.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Taken {
    pub customer_id: Uuid,
    pub key: String,
    pub request_hash: Vec<u8>,
    pub order_id: Uuid,
    pub answer: String,
    pub preference_applied: Option<String>,
    /// Seconds until the first request has been answered for certain; 0 if it has been.
    pub answer_in_seconds: i64,
}

/// Takes the keys that are free, or were given so long ago that they are free again, and returns the orders that got
/// theirs. A rival's uncommitted key is waited for. The claims must be of different keys.
pub async fn claim(tx: &mut PgConnection, claims: &[Claim]) -> Result<Vec<Uuid>, sqlx::Error> {
    let customers: Vec<Uuid> = claims.iter().map(|claim| claim.customer_id).collect();
    let keys: Vec<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
    let hashes: Vec<&[u8]> = claims.iter().map(|c| c.request_hash.as_slice()).collect();
    let orders: Vec<Uuid> = claims.iter().map(|claim| claim.order_id).collect();
    let answers: Vec<&str> = claims.iter().map(|claim| claim.answer.as_str()).collect();
    let applied: Vec<Option<&str>> = claims
        .iter()
        .map(|c| c.preference_applied.as_deref())
        .collect();
    let waits: Vec<i32> = claims
        .iter()
        .map(|claim| claim.wait_seconds as i32)
        .collect();
    // Sorted, so that two batches that share keys take them in one order.
    sqlx::query_scalar(
        "INSERT INTO idempotency (customer_id, key, request_hash, order_id, answer,
                                  preference_applied, answer_due_at, created_at)
         SELECT customer_id, key, request_hash, order_id, answer, preference_applied,
                now() + make_interval(secs => wait_seconds), now()
         FROM UNNEST($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::text[], $6::text[],
                     $7::integer[])
              AS new (customer_id, key, request_hash, order_id, answer, preference_applied,
                      wait_seconds)
         ORDER BY customer_id, key
         ON CONFLICT (customer_id, key) DO UPDATE
         SET request_hash = EXCLUDED.request_hash, order_id = EXCLUDED.order_id,
             answer = EXCLUDED.answer, preference_applied = EXCLUDED.preference_applied,
             answer_due_at = EXCLUDED.answer_due_at, created_at = EXCLUDED.created_at
         WHERE idempotency.created_at < now() - make_interval(hours => $8)
         RETURNING order_id",
    )
    .bind(customers)
    .bind(keys)
    .bind(hashes)
    .bind(orders)
    .bind(answers)
    .bind(applied)
    .bind(waits)
    .bind(IDEMPOTENCY_HOURS as i32)
    .fetch_all(tx)
    .await
}

/// What stands under these keys.
pub async fn taken(
    tx: &mut PgConnection,
    keys: &[(Uuid, &str)],
) -> Result<Vec<Taken>, sqlx::Error> {
    let (customers, keys): (Vec<Uuid>, Vec<&str>) = keys.iter().copied().unzip();
    sqlx::query_as(
        "SELECT idempotency.customer_id, idempotency.key, request_hash, order_id, answer,
                preference_applied,
                CEIL(GREATEST(0, EXTRACT(EPOCH FROM answer_due_at - clock_timestamp())))::bigint
                    AS answer_in_seconds
         FROM UNNEST($1::uuid[], $2::text[]) AS wanted (customer_id, key)
         JOIN idempotency
           ON idempotency.customer_id = ANY(ARRAY[wanted.customer_id])
           AND idempotency.key = wanted.key",
    )
    .bind(customers)
    .bind(keys)
    .fetch_all(tx)
    .await
}

/// A better answer for a request that is still waiting.
#[derive(Clone, Debug)]
pub struct BetterAnswer {
    pub customer_id: Uuid,
    pub key: String,
    pub order_id: Uuid,
    pub answer: String,
}

/// Replaces the answers of requests that are still unanswered, and returns their orders. Where it is too late, the
/// stored answer may have been given to somebody and must be the one that is sent.
pub async fn answer(
    tx: &mut PgConnection,
    answers: &[BetterAnswer],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let customers: Vec<Uuid> = answers.iter().map(|a| a.customer_id).collect();
    let keys: Vec<&str> = answers.iter().map(|a| a.key.as_str()).collect();
    let orders: Vec<Uuid> = answers.iter().map(|a| a.order_id).collect();
    let texts: Vec<&str> = answers.iter().map(|a| a.answer.as_str()).collect();
    sqlx::query_scalar(
        "UPDATE idempotency
         SET answer = new.answer, answer_due_at = clock_timestamp()
         FROM UNNEST($1::uuid[], $2::text[], $3::uuid[], $4::text[])
              AS new (customer_id, key, order_id, answer)
         WHERE idempotency.customer_id = ANY(ARRAY[new.customer_id]) AND idempotency.key = new.key
           AND idempotency.order_id = new.order_id
           AND idempotency.answer_due_at > clock_timestamp()
         RETURNING idempotency.order_id",
    )
    .bind(customers)
    .bind(keys)
    .bind(orders)
    .bind(texts)
    .fetch_all(tx)
    .await
}

/// Forgets keys that are free again, a bounded number at a time, and says how many.
pub async fn forget(tx: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM idempotency
         WHERE (customer_id, key) IN (
             SELECT customer_id, key FROM idempotency
             WHERE created_at < now() - make_interval(hours => $1)
             ORDER BY created_at LIMIT $2
             FOR UPDATE SKIP LOCKED)",
    )
    .bind(IDEMPOTENCY_HOURS as i32)
    .bind(limit)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}
