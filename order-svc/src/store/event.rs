//! The `order_event` table: the events of an order in this service, each kind at most once. The events of an order's
//! creation and end are written together with the order's row.

use super::corrupt;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Created,
    CancelRequested,
    Confirmed,
    Cancelled,
}

impl EventKind {
    pub const ALL: [Self; 4] = [
        Self::Created,
        Self::CancelRequested,
        Self::Confirmed,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::CancelRequested => "cancel_requested",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderEvent {
    pub order_id: Uuid,
    pub kind: EventKind,
    pub at: DateTime<Utc>,
    /// An object whose members depend on the kind.
    pub detail: Value,
}

/// Inserts events and returns how many were new.
pub async fn insert(tx: &mut PgConnection, events: &[OrderEvent]) -> Result<u64, sqlx::Error> {
    let orders: Vec<Uuid> = events.iter().map(|event| event.order_id).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|event| event.at).collect();
    let details: Vec<&Value> = events.iter().map(|event| &event.detail).collect();
    let done = sqlx::query(
        "INSERT INTO order_event (order_id, kind, at, detail)
         SELECT order_id, kind, at, detail
         FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::jsonb[])
              AS new (order_id, kind, at, detail)
         ON CONFLICT (order_id, kind) DO NOTHING",
    )
    .bind(orders)
    .bind(kinds)
    .bind(times)
    .bind(details)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Returns an order's events, oldest first.
pub async fn of_order(tx: &mut PgConnection, id: Uuid) -> Result<Vec<OrderEvent>, sqlx::Error> {
    let rows: Vec<(String, DateTime<Utc>, Value)> =
        sqlx::query_as("SELECT kind, at, detail FROM order_event WHERE order_id = $1 ORDER BY at")
            .bind(id)
            .fetch_all(tx)
            .await?;
    rows.into_iter()
        .map(|(text, at, detail)| {
            let kind = EventKind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == text)
                .ok_or_else(|| corrupt("kind", &text))?;
            Ok(OrderEvent {
                order_id: id,
                kind,
                at,
                detail,
            })
        })
        .collect()
}
