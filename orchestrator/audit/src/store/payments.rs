//! Reads payment-svc's database: its own rows, and the ledger of its gateway.

use super::Snapshot;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Id of the saga that made the payment.
    pub saga: Uuid,
    pub amount_minor: i64,
    pub currency: String,
    /// `charging`, `charged`, `declined`, `charge_failed`, `refunding`, `refunded`, `refund_failed`.
    pub status: String,
    pub created_at: DateTime<Utc>,
}

/// An operation that the gateway carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    pub key: String,
    /// `charge` or `refund`.
    pub operation: String,
    pub amount_minor: i64,
    pub currency: String,
    pub at: DateTime<Utc>,
}

#[derive(Clone, Debug, Default)]
pub struct Payments {
    /// Payments by order.
    pub rows: BTreeMap<Uuid, Payment>,
    /// Operations that the simulated gateway approved, by order. A real gateway has its own ledger.
    pub gateway: BTreeMap<Uuid, Vec<Movement>>,
    /// Time of the gateway's oldest entry; older entries may have been dropped. `None` if the gateway has no entries.
    pub gateway_since: Option<DateTime<Utc>>,
}

type PaymentRow = (Uuid, Uuid, i64, String, String, DateTime<Utc>);
type LedgerRow = (String, String, i64, String, DateTime<Utc>);

pub async fn read(snapshot: &mut Snapshot<'_>, since: Uuid) -> Result<Payments, sqlx::Error> {
    let mut payments = Payments::default();
    let rows: Vec<PaymentRow> = sqlx::query_as(
        "SELECT order_id, saga_id, amount_minor, currency, status, created_at FROM payment WHERE order_id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    for (order, saga, amount_minor, currency, status, created_at) in rows {
        let payment = Payment {
            saga,
            amount_minor,
            currency,
            status,
            created_at,
        };
        payments.rows.insert(order, payment);
    }
    payments.gateway_since = sqlx::query_scalar("SELECT MIN(decided_at) FROM gateway_ledger")
        .fetch_one(&mut **snapshot)
        .await?;
    let approved: Vec<LedgerRow> = sqlx::query_as(
        "SELECT key, operation, amount_minor, currency, decided_at FROM gateway_ledger
         WHERE decision = 'approved' ORDER BY decided_at",
    )
    .fetch_all(&mut **snapshot)
    .await?;
    for (key, operation, amount_minor, currency, at) in approved {
        // The key is <saga>/<step>/<direction>/<generation>; the saga has the order's id.
        let order = key.split('/').next().and_then(|id| id.parse().ok());
        let Some(order) = order.filter(|order| *order >= since) else {
            continue;
        };
        let movement = Movement {
            key,
            operation,
            amount_minor,
            currency,
            at,
        };
        payments.gateway.entry(order).or_default().push(movement);
    }
    Ok(payments)
}
