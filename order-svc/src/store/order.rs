//! The `orders` table.

use super::{corrupt, status};
use crate::domain::order::{CancelReason, Order, OrderLine, OrderStatus};
use chrono::{DateTime, Utc};
use saga_contracts::money::CurrencyUnit;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

impl FromRow<'_, PgRow> for Order {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let currency: &str = row.try_get("currency")?;
        let reason: Option<Json<CancelReason>> = row.try_get("reason")?;
        let Json(items) = row.try_get("items")?;
        Ok(Self {
            id: row.try_get("id")?,
            customer_id: row.try_get("customer_id")?,
            status: status(row.try_get("status")?)?,
            definition: row.try_get("definition")?,
            items,
            amount_minor: row.try_get("amount_minor")?,
            currency: CurrencyUnit::from_code(currency)
                .map_err(|_| corrupt("currency", currency))?,
            home_partition: row.try_get("home_partition")?,
            correlation_id: row.try_get("correlation_id")?,
            created_at: row.try_get("created_at")?,
            ended_at: row.try_get("ended_at")?,
            reason: reason.map(|Json(reason)| reason),
        })
    }
}

/// Builds a query. The columns are named instead of `*`: a migration may add a column while this version still runs,
/// and the result of a prepared statement must not change.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, customer_id, status, definition, items, amount_minor, currency, \
             home_partition, correlation_id, created_at, ended_at, reason FROM orders ",
            $rest
        )
    };
}

/// Inserts new, pending orders and their `created` events.
pub async fn insert(tx: &mut PgConnection, orders: &[&Order]) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id).collect();
    let customers: Vec<Uuid> = orders.iter().map(|order| order.customer_id).collect();
    let definitions: Vec<&str> = orders.iter().map(|o| o.definition.as_str()).collect();
    let items: Vec<Json<&[OrderLine]>> = orders.iter().map(|o| Json(o.items.as_slice())).collect();
    let amounts: Vec<i64> = orders.iter().map(|order| order.amount_minor).collect();
    let currencies: Vec<&str> = orders.iter().map(|order| order.currency.code()).collect();
    let partitions: Vec<i32> = orders.iter().map(|order| order.home_partition).collect();
    let correlations: Vec<&str> = orders.iter().map(|o| o.correlation_id.as_str()).collect();
    let created: Vec<DateTime<Utc>> = orders.iter().map(|order| order.created_at).collect();
    sqlx::query(
        "WITH placed AS (
             INSERT INTO orders (id, customer_id, status, definition, items, amount_minor, currency,
                                 home_partition, correlation_id, created_at)
             SELECT id, customer_id, 'PENDING', definition, items, amount_minor, currency,
                    home_partition, correlation_id, created_at
             FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::jsonb[], $5::bigint[], $6::text[],
                         $7::integer[], $8::text[], $9::timestamptz[])
                  AS new (id, customer_id, definition, items, amount_minor, currency,
                          home_partition, correlation_id, created_at)
             RETURNING id, created_at
         )
         INSERT INTO order_event (order_id, kind, at, detail)
         SELECT id, 'created', created_at, '{}' FROM placed",
    )
    .bind(ids)
    .bind(customers)
    .bind(definitions)
    .bind(items)
    .bind(amounts)
    .bind(currencies)
    .bind(partitions)
    .bind(correlations)
    .bind(created)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn find(tx: &mut PgConnection, id: Uuid) -> Result<Option<Order>, sqlx::Error> {
    sqlx::query_as(select!("WHERE id = $1"))
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// Returns the order, locked until the transaction ends, so that its saga cannot end it meanwhile.
pub async fn lock(tx: &mut PgConnection, id: Uuid) -> Result<Option<Order>, sqlx::Error> {
    sqlx::query_as(select!("WHERE id = $1 FOR UPDATE"))
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// Returns those of the given orders that have ended. The poller calls this for the waiting requests.
pub async fn ended(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Order>, sqlx::Error> {
    sqlx::query_as(select!("WHERE id = ANY($1) AND ended_at IS NOT NULL"))
        .bind(ids)
        .fetch_all(tx)
        .await
}

/// An order's status and creation time, for a participant's batch.
#[derive(Clone, Copy, Debug)]
pub struct OrderState {
    pub id: Uuid,
    pub status: OrderStatus,
    pub created_at: DateTime<Utc>,
}

/// Locks the orders in key order, as every batch does, so that two batches cannot deadlock.
pub async fn lock_all(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<OrderState>, sqlx::Error> {
    let rows: Vec<(Uuid, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT id, status, created_at FROM orders WHERE id = ANY($1) ORDER BY id FOR UPDATE",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, text, created_at)| {
            Ok(OrderState {
                id,
                status: status(&text)?,
                created_at,
            })
        })
        .collect()
}

/// The end of an order.
#[derive(Clone, Debug)]
pub struct End {
    pub id: Uuid,
    pub status: OrderStatus,
    pub at: DateTime<Utc>,
    pub reason: Option<CancelReason>,
}

/// Ends pending orders and writes their events. Returns how many were ended; a smaller number than given means that the
/// lock was not held.
pub async fn end(tx: &mut PgConnection, ends: &[End]) -> Result<i64, sqlx::Error> {
    let ids: Vec<Uuid> = ends.iter().map(|end| end.id).collect();
    let statuses: Vec<&str> = ends.iter().map(|end| end.status.as_str()).collect();
    let times: Vec<DateTime<Utc>> = ends.iter().map(|end| end.at).collect();
    let reasons: Vec<Option<Json<&CancelReason>>> = ends
        .iter()
        .map(|end| end.reason.as_ref().map(Json))
        .collect();
    sqlx::query_scalar(
        "WITH ended AS (
             UPDATE orders
             SET status = new.status, ended_at = new.ended_at, reason = new.reason
             FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::jsonb[])
                  AS new (id, status, ended_at, reason)
             WHERE orders.id = ANY(ARRAY[new.id]) AND orders.ended_at IS NULL
             RETURNING orders.id, orders.status, orders.ended_at, orders.reason
         ), told AS (
             INSERT INTO order_event (order_id, kind, at, detail)
             SELECT id, LOWER(status), ended_at, COALESCE(reason, '{}') FROM ended
             ON CONFLICT (order_id, kind) DO NOTHING
         )
         SELECT COUNT(*) FROM ended",
    )
    .bind(ids)
    .bind(statuses)
    .bind(times)
    .bind(reasons)
    .fetch_one(tx)
    .await
}

/// The filter of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub status: Option<OrderStatus>,
    pub customer_id: Option<Uuid>,
    /// Only orders with a smaller id, which are older.
    pub before: Option<Uuid>,
}

/// Returns a page of orders, newest first. The statement's text depends on the filter, so that each combination has its
/// own plan.
pub async fn list(
    tx: &mut PgConnection,
    filter: Filter,
    limit: u32,
) -> Result<Vec<Order>, sqlx::Error> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(select!("WHERE TRUE"));
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(customer_id) = filter.customer_id {
        query.push(" AND customer_id = ").push_bind(customer_id);
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before);
    }
    query
        .push(" ORDER BY id DESC LIMIT ")
        .push_bind(i64::from(limit));
    query.build_query_as().fetch_all(tx).await
}

/// Returns the number of pending orders, counted up to `bound`, so that the metric stays cheap.
pub async fn count_pending(tx: &mut PgConnection, bound: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM (SELECT 1 FROM orders WHERE status = 'PENDING' LIMIT $1) AS pending",
    )
    .bind(bound)
    .fetch_one(tx)
    .await
}
