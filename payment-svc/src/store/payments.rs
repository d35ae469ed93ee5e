//! What a batch of commands or settlements reads and writes: every payment once, in key order.

use crate::domain::{Book, Entry, Payment, PaymentChange, PaymentStatus};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Entries that a payment's history keeps: the first, and the latest behind it. A payment that is tried more often than
/// that waits for a person anyway, who wants to see its end.
const HISTORY_MAX: i32 = 50;

#[derive(sqlx::FromRow)]
pub(super) struct PaymentRow {
    order_id: Uuid,
    customer_id: Uuid,
    amount_minor: i64,
    currency: String,
    status: String,
    caller: String,
    charge_reference: Option<String>,
    refund_reference: Option<String>,
    fault_code: Option<String>,
    fault_message: Option<String>,
}

impl TryFrom<PaymentRow> for Payment {
    type Error = sqlx::Error;

    fn try_from(row: PaymentRow) -> Result<Self, sqlx::Error> {
        let status = PaymentStatus::parse(&row.status)
            .ok_or_else(|| sqlx::Error::Decode(format!("payment status {}", row.status).into()))?;
        Ok(Self {
            order_id: row.order_id,
            customer_id: row.customer_id,
            amount_minor: row.amount_minor,
            currency: row.currency,
            status,
            caller: row.caller,
            charge_reference: row.charge_reference,
            refund_reference: row.refund_reference,
            fault_code: row.fault_code,
            fault_message: row.fault_message,
        })
    }
}

/// Locks and reads the payments of these orders.
pub async fn lock(tx: &mut PgConnection, mut orders: Vec<Uuid>) -> Result<Book, sqlx::Error> {
    orders.sort_unstable();
    orders.dedup();
    let rows: Vec<PaymentRow> = sqlx::query_as(
        "SELECT order_id, customer_id, amount_minor, currency, status, caller, charge_reference, \
         refund_reference, fault_code, fault_message FROM payment \
         WHERE order_id = ANY($1) ORDER BY order_id FOR NO KEY UPDATE",
    )
    .bind(&orders)
    .fetch_all(tx)
    .await?;
    let payments: Result<Vec<Payment>, sqlx::Error> =
        rows.into_iter().map(Payment::try_from).collect();
    Ok(Book::new(payments?))
}

/// Reads one payment without locking it.
pub async fn find(pool: &PgPool, order: Uuid) -> Result<Option<Payment>, sqlx::Error> {
    let row: Option<PaymentRow> = sqlx::query_as(
        "SELECT order_id, customer_id, amount_minor, currency, status, caller, charge_reference, \
         refund_reference, fault_code, fault_message FROM payment WHERE order_id = $1",
    )
    .bind(order)
    .fetch_optional(pool)
    .await?;
    row.map(Payment::try_from).transpose()
}

/// Writes what a batch came to. Fewer rows than changes: a rival was first, and the batch must run again.
pub async fn write(tx: &mut PgConnection, book: Book) -> Result<(), sqlx::Error> {
    let (new, changed): (Vec<_>, Vec<_>) =
        book.changes().into_iter().partition(|change| change.is_new);
    insert(tx, &new).await?;
    update(tx, &changed).await
}

async fn insert(tx: &mut PgConnection, changes: &[PaymentChange]) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(changes)?;
    let query = sqlx::query(
        "INSERT INTO payment (order_id, customer_id, amount_minor, currency, status, caller, \
         charge_reference, refund_reference, fault_code, fault_message, history) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], \
         $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::jsonb[]) \
         ON CONFLICT DO NOTHING",
    );
    let written = columns.bind(query).execute(tx).await?;
    count("new payment", written.rows_affected(), changes.len())
}

async fn update(tx: &mut PgConnection, changes: &[PaymentChange]) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(changes)?;
    let query = sqlx::query(
        "UPDATE payment p SET customer_id = u.customer_id, amount_minor = u.amount_minor, \
         currency = u.currency, status = u.status, caller = u.caller, \
         charge_reference = u.charge_reference, refund_reference = u.refund_reference, \
         fault_code = u.fault_code, fault_message = u.fault_message, \
         history = CASE WHEN jsonb_array_length(p.history) >= $12 \
         THEN p.history - 1 ELSE p.history END || u.history, updated_at = clock_timestamp() \
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
         $7::text[], $8::text[], $9::text[], $10::text[], $11::jsonb[]) \
         AS u(order_id, customer_id, amount_minor, currency, status, caller, charge_reference, \
         refund_reference, fault_code, fault_message, history) WHERE p.order_id = ANY(ARRAY[u.order_id])",
    );
    let written = columns.bind(query).bind(HISTORY_MAX).execute(tx).await?;
    count("payment", written.rows_affected(), changes.len())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

struct Columns<'a> {
    payments: Vec<&'a Payment>,
    history: Vec<Value>,
}

impl<'a> Columns<'a> {
    fn of(changes: &'a [PaymentChange]) -> Result<Self, sqlx::Error> {
        let history: Result<Vec<Value>, sqlx::Error> = changes
            .iter()
            .map(|change| entries(&change.entries))
            .collect();
        Ok(Self {
            payments: changes.iter().map(|change| &change.payment).collect(),
            history: history?,
        })
    }

    fn each<T>(&self, of: impl Fn(&'a Payment) -> T) -> Vec<T> {
        self.payments.iter().map(|payment| of(payment)).collect()
    }

    /// `$1` to `$11`.
    fn bind<'q>(self, query: Query<'q>) -> Query<'q>
    where
        'a: 'q,
    {
        query
            .bind(self.each(|payment| payment.order_id))
            .bind(self.each(|payment| payment.customer_id))
            .bind(self.each(|payment| payment.amount_minor))
            .bind(self.each(|payment| payment.currency.as_str()))
            .bind(self.each(|payment| payment.status.as_str()))
            .bind(self.each(|payment| payment.caller.as_str()))
            .bind(self.each(|payment| payment.charge_reference.as_deref()))
            .bind(self.each(|payment| payment.refund_reference.as_deref()))
            .bind(self.each(|payment| payment.fault_code.as_deref()))
            .bind(self.each(|payment| payment.fault_message.as_deref()))
            .bind(self.history)
    }
}

fn entries(entries: &[Entry]) -> Result<Value, sqlx::Error> {
    serde_json::to_value(entries).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// Not a data error: the batch rolls back, is loaded again and runs again.
fn count(what: &str, written: u64, expected: usize) -> Result<(), sqlx::Error> {
    if usize::try_from(written).is_ok_and(|written| written == expected) {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(format!(
            "{written} of {expected} {what} rows written"
        )))
    }
}
