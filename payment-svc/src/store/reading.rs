//! What people ask over HTTP.

use super::payments::PaymentRow;
use crate::domain::{Entry, Payment};
use chrono::{DateTime, Utc};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

/// A payment with what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRecord {
    pub payment: Payment,
    pub history: Vec<Entry>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct Row {
    #[sqlx(flatten)]
    payment: PaymentRow,
    history: Json<Vec<Entry>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for PaymentRecord {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            payment: Payment::try_from(row.payment)?,
            history: row.history.0,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// A part of the payments, the newest orders first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentPage {
    pub payments: Vec<PaymentRecord>,
    /// The last order of the page, if there are more behind it.
    pub next: Option<Uuid>,
}

pub async fn find_record(pool: &PgPool, order: Uuid) -> Result<Option<PaymentRecord>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM payment WHERE order_id = $1")
        .bind(order)
        .fetch_optional(pool)
        .await?;
    row.map(PaymentRecord::try_from).transpose()
}

/// At most `limit` payments behind `after`. Order ids are ordered by time, so their primary key serves.
pub async fn list_records(
    pool: &PgPool,
    after: Option<Uuid>,
    limit: u32,
) -> Result<PaymentPage, sqlx::Error> {
    // One more than asked for tells whether there is a next page.
    let query = match after {
        None => sqlx::query_as("SELECT * FROM payment ORDER BY order_id DESC LIMIT $1")
            .bind(i64::from(limit) + 1),
        Some(after) => sqlx::query_as(
            "SELECT * FROM payment WHERE order_id < $2 ORDER BY order_id DESC LIMIT $1",
        )
        .bind(i64::from(limit) + 1)
        .bind(after),
    };
    let rows: Vec<Row> = query.fetch_all(pool).await?;
    let payments: Result<Vec<PaymentRecord>, sqlx::Error> =
        rows.into_iter().map(PaymentRecord::try_from).collect();
    let mut payments = payments?;
    let more = payments.len() > limit as usize;
    payments.truncate(limit as usize);
    let next = payments
        .last()
        .filter(|_| more)
        .map(|record| record.payment.order_id);
    Ok(PaymentPage { payments, next })
}
