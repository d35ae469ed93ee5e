//! Reads and writes the payments of a batch of commands or settlements: every payment once, in key order.

use crate::domain::{Entry, Payment, PaymentBatch, PaymentChange, PaymentStatus};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool, Row, postgres::PgRow};
use uuid::Uuid;

/// The maximum number of entries in a payment's history: the first, and the latest ones. A payment with more attempts
/// waits for a person, who needs to see the latest ones.
const HISTORY_MAX: i32 = 50;

impl FromRow<'_, PgRow> for Payment {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let status: &str = row.try_get("status")?;
        let status = PaymentStatus::parse(status)
            .ok_or_else(|| sqlx::Error::Decode(format!("payment status {status}").into()))?;
        Ok(Self {
            order_id: row.try_get("order_id")?,
            saga_id: row.try_get("saga_id")?,
            customer_id: row.try_get("customer_id")?,
            amount_minor: row.try_get("amount_minor")?,
            currency: row.try_get("currency")?,
            status,
            caller: row.try_get("caller")?,
            charge_reference: row.try_get("charge_reference")?,
            refund_reference: row.try_get("refund_reference")?,
            fault_code: row.try_get("fault_code")?,
            fault_message: row.try_get("fault_message")?,
        })
    }
}

/// Locks and reads the payments of these orders.
pub async fn lock(
    tx: &mut PgConnection,
    mut orders: Vec<Uuid>,
) -> Result<PaymentBatch, sqlx::Error> {
    orders.sort_unstable();
    orders.dedup();
    let payments = sqlx::query_as(
        "SELECT order_id, saga_id, customer_id, amount_minor, currency, status, caller, charge_reference, \
         refund_reference, fault_code, fault_message FROM payment \
         WHERE order_id = ANY($1) ORDER BY order_id FOR NO KEY UPDATE",
    )
    .bind(&orders)
    .fetch_all(tx)
    .await?;
    Ok(PaymentBatch::new(payments))
}

/// Reads one payment without locking it.
pub async fn find(pool: &PgPool, order: Uuid) -> Result<Option<Payment>, sqlx::Error> {
    sqlx::query_as(
        "SELECT order_id, saga_id, customer_id, amount_minor, currency, status, caller, charge_reference, \
         refund_reference, fault_code, fault_message FROM payment WHERE order_id = $1",
    )
    .bind(order)
    .fetch_optional(pool)
    .await
}

/// Writes a batch's changes. If fewer rows than changes are written, another transaction was first, and the batch must
/// run again.
pub async fn write(tx: &mut PgConnection, book: PaymentBatch) -> Result<(), sqlx::Error> {
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

    /// Binds `$1` to `$11`. The saga is not bound, because `caller` contains it.
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

/// Checks the number of written rows. A mismatch is not a data error: the batch rolls back, is loaded again and runs
/// again.
fn count(what: &str, written: u64, expected: usize) -> Result<(), sqlx::Error> {
    if usize::try_from(written).is_ok_and(|written| written == expected) {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(format!(
            "{written} of {expected} {what} rows written"
        )))
    }
}
