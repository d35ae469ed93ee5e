//! The statements of the simulated gateway's ledger.

use crate::domain::Operation;
use sqlx::{FromRow, PgPool, Row, postgres::PgRow};
use std::collections::HashMap;
use uuid::Uuid;

/// A key with the decision that it was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    pub key: String,
    pub operation: Operation,
    pub amount_minor: i64,
    pub currency: String,
    pub decision: LedgerDecision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerDecision {
    Approved {
        reference: String,
    },
    Declined {
        code: String,
        message: String,
    },
    /// Nothing was done, and nothing will be done with this key.
    Failed {
        order_id: Uuid,
        message: String,
    },
}

impl LedgerDecision {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Approved { .. } => "approved",
            Self::Declined { .. } => "declined",
            Self::Failed { .. } => "failed",
        }
    }

    fn reference(&self) -> Option<&str> {
        match self {
            Self::Approved { reference } => Some(reference),
            Self::Declined { .. } | Self::Failed { .. } => None,
        }
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Approved { .. } | Self::Failed { .. } => None,
            Self::Declined { code, .. } => Some(code),
        }
    }

    fn message(&self) -> Option<&str> {
        match self {
            Self::Approved { .. } => None,
            Self::Declined { message, .. } | Self::Failed { message, .. } => Some(message),
        }
    }

    fn order_id(&self) -> Option<Uuid> {
        match self {
            Self::Approved { .. } | Self::Declined { .. } => None,
            Self::Failed { order_id, .. } => Some(*order_id),
        }
    }
}

impl FromRow<'_, PgRow> for LedgerEntry {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let operation: &str = row.try_get("operation")?;
        let operation = [Operation::Charge, Operation::Refund]
            .into_iter()
            .find(|known| known.as_str() == operation)
            .ok_or_else(|| sqlx::Error::Decode(format!("operation {operation}").into()))?;
        let message: Option<String> = row.try_get("message")?;
        let message = message.unwrap_or_default();
        let order_id: Option<Uuid> = row.try_get("order_id")?;
        let decision = match (row.try_get("reference")?, row.try_get("code")?) {
            (Some(reference), _) => LedgerDecision::Approved { reference },
            (None, Some(code)) => LedgerDecision::Declined { code, message },
            (None, None) => LedgerDecision::Failed {
                order_id: order_id.unwrap_or_default(),
                message,
            },
        };
        Ok(Self {
            key: row.try_get("key")?,
            operation,
            amount_minor: row.try_get("amount_minor")?,
            currency: row.try_get("currency")?,
            decision,
        })
    }
}

/// Stores the decisions of keys that have none, and returns for each entry the decision that counts, in the order
/// given. One statement commits the new keys; the decisions of existing keys are read after it.
pub async fn record(
    pool: &PgPool,
    entries: Vec<LedgerEntry>,
) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    let mut sorted: Vec<&LedgerEntry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    sorted.dedup_by(|a, b| a.key == b.key);
    let column = |of: fn(&LedgerEntry) -> Option<&str>| -> Vec<Option<String>> {
        sorted
            .iter()
            .map(|entry| of(entry).map(str::to_owned))
            .collect()
    };
    let orders: Vec<Option<Uuid>> = sorted
        .iter()
        .map(|entry| entry.decision.order_id())
        .collect();
    let amounts: Vec<i64> = sorted.iter().map(|entry| entry.amount_minor).collect();
    let kept: Vec<(String,)> = sqlx::query_as(
        "INSERT INTO gateway_ledger \
         (key, operation, amount_minor, currency, decision, reference, code, message, order_id) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], \
         $6::text[], $7::text[], $8::text[], $9::uuid[]) ON CONFLICT (key) DO NOTHING RETURNING key",
    )
    .bind(column(|entry| Some(&entry.key)))
    .bind(column(|entry| Some(entry.operation.as_str())))
    .bind(&amounts)
    .bind(column(|entry| Some(&entry.currency)))
    .bind(column(|entry| Some(entry.decision.as_str())))
    .bind(column(|entry| entry.decision.reference()))
    .bind(column(|entry| entry.decision.code()))
    .bind(column(|entry| entry.decision.message()))
    .bind(orders)
    .fetch_all(pool)
    .await?;
    let mut known: HashMap<String, LedgerEntry> = HashMap::new();
    if kept.len() < entries.len() {
        let keys: Vec<String> = sorted.iter().map(|entry| entry.key.clone()).collect();
        let found = read_keys(pool, &keys).await?;
        known.extend(found.into_iter().map(|entry| (entry.key.clone(), entry)));
    }
    Ok(entries
        .into_iter()
        .map(|entry| known.get(&entry.key).cloned().unwrap_or(entry))
        .collect())
}

async fn read_keys(pool: &PgPool, keys: &[String]) -> Result<Vec<LedgerEntry>, sqlx::Error> {
    sqlx::query_as(
        "SELECT key, operation, amount_minor, currency, reference, code, message, order_id \
         FROM gateway_ledger WHERE key = ANY($1)",
    )
    .bind(keys)
    .fetch_all(pool)
    .await
}

/// Returns how many keys of an order were answered with a failure.
pub async fn failures(
    pool: &PgPool,
    order_id: Uuid,
    operation: Operation,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) FROM gateway_ledger \
         WHERE order_id = $1 AND operation = $2 AND decision = 'failed'",
    )
    .bind(order_id)
    .bind(operation.as_str())
    .fetch_one(pool)
    .await
}
