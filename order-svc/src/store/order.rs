//! The `orders` table.

use super::{corrupt, status};
use crate::domain::{
    money::CurrencyUnit,
    order::{CancelReason, Order, OrderLine, OrderStatus},
};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

/// A row as it is read.
#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    customer_id: Uuid,
    status: String,
    definition: String,
    items: Json<Vec<OrderLine>>,
    amount_minor: i64,
    currency: String,
    home_partition: i32,
    correlation_id: String,
    created_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    reason: Option<Json<CancelReason>>,
}

impl Row {
    fn into_order(self) -> Result<Order, sqlx::Error> {
        Ok(Order {
            id: self.id,
            customer_id: self.customer_id,
            status: status(&self.status)?,
            definition: self.definition,
            items: self.items.0,
            amount_minor: self.amount_minor,
            currency: CurrencyUnit::from_code(&self.currency)
                .map_err(|_| corrupt("currency", &self.currency))?,
            home_partition: self.home_partition,
            correlation_id: self.correlation_id,
            created_at: self.created_at,
            ended_at: self.ended_at,
            reason: self.reason.map(|Json(reason)| reason),
        })
    }
}

/// The columns are named, not `*`: a migration may add one while this version still runs, and a prepared statement
/// must not change its result.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, customer_id, status, definition, items, amount_minor, currency, \
             home_partition, correlation_id, created_at, ended_at, reason FROM orders ",
            $rest
        )
    };
}

/// Inserts new, pending orders, and that they were created.
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
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1"))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    row.map(Row::into_order).transpose()
}

/// The order, locked against its saga's end until the transaction ends.
pub async fn lock(tx: &mut PgConnection, id: Uuid) -> Result<Option<Order>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(select!("WHERE id = $1 FOR UPDATE"))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    row.map(Row::into_order).transpose()
}

/// Of these orders, those that have ended: what everyone who waits is waiting for.
pub async fn ended(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Order>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(select!("WHERE id = ANY($1) AND ended_at IS NOT NULL"))
        .bind(ids)
        .fetch_all(tx)
        .await?;
    rows.into_iter().map(Row::into_order).collect()
}

/// Where an order stands and since when, for a participant's batch.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub id: Uuid,
    pub status: OrderStatus,
    pub created_at: DateTime<Utc>,
}

/// Locks the orders in key order, as every batch does, so that two batches never wait for each other in a ring.
pub async fn lock_all(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Standing>, sqlx::Error> {
    let rows: Vec<(Uuid, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT id, status, created_at FROM orders WHERE id = ANY($1) ORDER BY id FOR UPDATE",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(id, text, created_at)| {
            Ok(Standing {
                id,
                status: status(&text)?,
                created_at,
            })
        })
        .collect()
}

/// How an order ended.
#[derive(Clone, Debug)]
pub struct End {
    pub id: Uuid,
    pub status: OrderStatus,
    pub at: DateTime<Utc>,
    pub reason: Option<CancelReason>,
}

/// Ends pending orders and writes down that they ended; says how many: fewer than given means that the lock was not held.
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

/// What a listing shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub status: Option<OrderStatus>,
    pub customer_id: Option<Uuid>,
    /// Only orders older than this one.
    pub before: Option<Uuid>,
}

/// A page, newest first. The text follows the filter, so that each combination has its own plan.
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
    let rows: Vec<Row> = query.build_query_as().fetch_all(tx).await?;
    rows.into_iter().map(Row::into_order).collect()
}

/// Pending orders, counted up to `bound`: a figure for the metrics that cannot become expensive.
pub async fn count_pending(tx: &mut PgConnection, bound: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM (SELECT 1 FROM orders WHERE status = 'PENDING' LIMIT $1) AS pending",
    )
    .bind(bound)
    .fetch_one(tx)
    .await
}
