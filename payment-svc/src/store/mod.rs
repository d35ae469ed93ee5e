//! The SQL of the payment database. The caller owns the transaction, except for the gateway's ledger, which is not part
//! of any transaction of a saga.

mod ledger;
mod payments;
mod reading;

pub use ledger::{LedgerDecision, LedgerEntry, failures, record};
pub use payments::{find, lock, write};
pub use reading::{PaymentPage, PaymentRecord, find_record, list_records};

use saga_postgres::migrations;
use sqlx::migrate::Migrator;
use std::sync::LazyLock;

/// The service's migrations: embedded, forward only.
pub static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrations::embedded(&[
        (
            1,
            "payment",
            include_str!("../../../migrations/payment/0001_payment.sql"),
        ),
        (
            2,
            "failed keys",
            include_str!("../../../migrations/payment/0002_failed_keys.sql"),
        ),
    ])
});

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn migrations_are_those_of_the_folder() {
        saga_test_support::migrations::assert_embedded(
            &super::MIGRATIONS,
            concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/payment"),
            &[
                "6721c7f2700f2747317c388efe05034b50b55040960705c6bc068c9f57aebccd05fb8e35816533e2a3faf4d272d4d8ac",
                "d67990ba316ff510f49c91a930d6ca7ed0c274ac56e422cb172bd9fc99a4136b059d50e6642e31681a4fe0533815b933",
            ],
        )
        .await;
    }
}
