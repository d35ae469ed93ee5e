//! The `idempotency` table: the order that a customer's key made, for a day.

use crate::domain::limits::IDEMPOTENCY_HOURS;
use sqlx::PgConnection;
use uuid::Uuid;

/// A key, and the request that holds it or tries to take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub customer_id: Uuid,
    pub key: String,
    pub request_hash: Vec<u8>,
    pub order_id: Uuid,
}

saga_postgres::from_row!(Claim: customer_id, key, request_hash, order_id);

/// Takes the keys that are free or expired, and returns the orders whose claims succeeded. Waits for keys that another
/// transaction has taken and not committed yet. The claims must have different keys.
pub async fn claim(tx: &mut PgConnection, claims: &[Claim]) -> Result<Vec<Uuid>, sqlx::Error> {
    let customers: Vec<Uuid> = claims.iter().map(|claim| claim.customer_id).collect();
    let keys: Vec<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
    let hashes: Vec<&[u8]> = claims.iter().map(|c| c.request_hash.as_slice()).collect();
    let orders: Vec<Uuid> = claims.iter().map(|claim| claim.order_id).collect();
    // Sorted, so that two batches that share keys take them in the same order.
    sqlx::query_scalar(
        "INSERT INTO idempotency (customer_id, key, request_hash, order_id, created_at)
         SELECT customer_id, key, request_hash, order_id, now()
         FROM UNNEST($1::uuid[], $2::text[], $3::bytea[], $4::uuid[])
              AS new (customer_id, key, request_hash, order_id)
         ORDER BY customer_id, key
         ON CONFLICT (customer_id, key) DO UPDATE
         SET request_hash = EXCLUDED.request_hash, order_id = EXCLUDED.order_id,
             created_at = EXCLUDED.created_at
         WHERE idempotency.created_at < now() - make_interval(hours => $5)
         RETURNING order_id",
    )
    .bind(customers)
    .bind(keys)
    .bind(hashes)
    .bind(orders)
    .bind(IDEMPOTENCY_HOURS as i32)
    .fetch_all(tx)
    .await
}

/// Returns the holders of the keys that these claims did not get.
pub async fn holders(tx: &mut PgConnection, late: &[Claim]) -> Result<Vec<Claim>, sqlx::Error> {
    let (customers, keys): (Vec<Uuid>, Vec<&str>) = late
        .iter()
        .map(|claim| (claim.customer_id, claim.key.as_str()))
        .unzip();
    sqlx::query_as(
        "SELECT idempotency.customer_id, idempotency.key, request_hash, order_id
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

/// Deletes at most `limit` expired keys, and returns how many were deleted.
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
