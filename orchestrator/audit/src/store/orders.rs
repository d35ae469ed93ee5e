//! Reads order-svc's database: orders, and the starts that are not published yet.

use super::Snapshot;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::types::Json;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub customer: Uuid,
    /// `PENDING`, `CONFIRMED`, `CANCELLED`.
    pub status: String,
    pub definition: String,
    pub amount_minor: i64,
    pub currency: String,
    /// Pieces by product.
    pub items: BTreeMap<Uuid, i64>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Orders {
    pub by_id: BTreeMap<Uuid, Order>,
    /// Sagas with messages in the outbox.
    pub outbox: BTreeSet<Uuid>,
}

#[derive(Deserialize)]
struct Line {
    product_id: Uuid,
    quantity: i64,
}

type OrderRow = (
    Uuid,
    Uuid,
    String,
    String,
    i64,
    String,
    Json<Vec<Line>>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<String>,
);

pub async fn read(snapshot: &mut Snapshot<'_>, since: Uuid) -> Result<Orders, sqlx::Error> {
    let rows: Vec<OrderRow> = sqlx::query_as(
        "SELECT id, customer_id, status, definition, amount_minor, currency, items, created_at, ended_at,
           reason->>'code'
         FROM orders WHERE id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    let mut orders = Orders::default();
    for row in rows {
        let (id, customer, status, definition, amount_minor, currency, Json(lines), ..) = row;
        let (.., created_at, ended_at, reason) = row;
        let mut items = BTreeMap::new();
        for line in lines {
            *items.entry(line.product_id).or_default() += line.quantity;
        }
        let order = Order {
            customer,
            status,
            definition,
            amount_minor,
            currency,
            items,
            created_at,
            ended_at,
            reason,
        };
        orders.by_id.insert(id, order);
    }
    orders.outbox = read_outbox(snapshot).await?;
    Ok(orders)
}

#[derive(Deserialize)]
struct Waiting {
    key: serde_json::Value,
}

/// Returns the sagas of the outbox. A row is a JSON list of records; a key that is UTF-8 is stored as text.
async fn read_outbox(snapshot: &mut Snapshot<'_>) -> Result<BTreeSet<Uuid>, sqlx::Error> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar("SELECT records FROM outbox")
        .fetch_all(&mut **snapshot)
        .await?;
    let records = rows
        .iter()
        .filter_map(|text| serde_json::from_slice::<Vec<Waiting>>(text).ok())
        .flatten();
    Ok(records
        .filter_map(|record| record.key.as_str()?.parse().ok())
        .collect())
}
