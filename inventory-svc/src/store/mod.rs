//! The SQL of the inventory database. The caller owns the transaction.

mod batch;
mod shop;

pub use batch::{lock, write};
pub use shop::{
    Product, ProductPage, Restock, find_product, list_products, reservations_of, restock,
};

use saga_postgres::migrations;
use sqlx::migrate::Migrator;
use std::sync::LazyLock;

/// The service's migrations: embedded, forward only.
pub static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrations::embedded(&[
        (
            1,
            "stock",
            include_str!("../../../migrations/inventory/0001_stock.sql"),
        ),
        (
            2,
            "received",
            include_str!("../../../migrations/inventory/0002_received.sql"),
        ),
    ])
});

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn migrations_are_those_of_the_folder() {
        saga_test_support::migrations::assert_embedded(
            &super::MIGRATIONS,
            concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/inventory"),
            &[
                "5f58c2695a919d6d967e3d3240d13bdcf7b21fd66da4253b0a237dd04956d1797572df26cc2da20bd7e50708c4dbe149",
                "b12703e315271a55fe830d92364d4854e415b98268020e7b4423413d685a281a8b0dac802cf0e339a441216fde90338e",
            ],
        )
        .await;
    }
}
