//! The tables of the payment database. The caller owns the transaction, except of the gateway's ledger, which is not
//! part of any.

mod ledger;
mod payments;
mod reading;

pub use ledger::{LedgerDecision, LedgerEntry, failures, record};
pub use payments::{find, lock, write};
pub use reading::{PaymentPage, PaymentRecord, find_record, list_records};

/// Brings the database up to date; embedded, forward only.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/payment");
