//! All SQL of this service. Functions take a connection; the caller owns the transaction.

pub mod event;
pub mod idempotency;
pub mod migration;
pub mod order;

use crate::domain::order::OrderStatus;

/// Returns an error for a value that this program never writes.
fn corrupt(column: &'static str, value: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("'{value}' is not a {column}").into(),
    }
}

fn status(text: &str) -> Result<OrderStatus, sqlx::Error> {
    text.parse().map_err(|_| corrupt("status", text))
}
