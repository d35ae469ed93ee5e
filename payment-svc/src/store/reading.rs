//! The statements of the HTTP API.

use crate::domain::{Entry, Payment};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, Row, postgres::PgRow, types::Json};
use uuid::Uuid;

/// A payment with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRecord {
    pub payment: Payment,
    pub history: Vec<Entry>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl FromRow<'_, PgRow> for PaymentRecord {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Json(history) = row.try_get("history")?;
        Ok(Self {
            payment: Payment::from_row(row)?,
            history,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// A page of payments, the newest orders first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentPage {
    pub payments: Vec<PaymentRecord>,
    /// The last order of the page, if more payments follow.
    pub next: Option<Uuid>,
}

pub async fn find_record(pool: &PgPool, order: Uuid) -> Result<Option<PaymentRecord>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM payment WHERE order_id = $1")
        .bind(order)
        .fetch_optional(pool)
        .await
}

/// Returns at most `limit` payments after `after`. Order ids are sorted by time, so the primary key's index is used.
pub async fn list_records(
    pool: &PgPool,
    after: Option<Uuid>,
    limit: u32,
) -> Result<PaymentPage, sqlx::Error> {
    // One payment more than requested, to know if there is a next page.
    let query = match after {
        None => sqlx::query_as("SELECT * FROM payment ORDER BY order_id DESC LIMIT $1")
            .bind(i64::from(limit) + 1),
        Some(after) => sqlx::query_as(
            "SELECT * FROM payment WHERE order_id < $2 ORDER BY order_id DESC LIMIT $1",
        )
        .bind(i64::from(limit) + 1)
        .bind(after),
    };
    let mut payments: Vec<PaymentRecord> = query.fetch_all(pool).await?;
    let more = payments.len() > limit as usize;
    payments.truncate(limit as usize);
    let next = payments
        .last()
        .filter(|_| more)
        .map(|record| record.payment.order_id);
    Ok(PaymentPage { payments, next })
}
