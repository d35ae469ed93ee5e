//! All migrations of this service's database.

use saga_messaging::migrations;
use saga_postgres::migrations::embedded;
use sqlx::migrate::Migrator;

/// Returns the migrations of the service's own tables, then those of the messaging library for the barrier and the
/// outbox. Each has its own history.
pub fn all() -> [Migrator; 2] {
    let orders = include_str!("../../../migrations/order/0001_orders.sql");
    [embedded(&[(1, "orders", orders)]), migrations::migrator()]
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn migrations_are_those_of_the_folder() {
        saga_test_support::migrations::assert_embedded(
            &super::all()[0],
            concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/order"),
            &[
                "7e6684019fb2ae01101f0abb110217fbb0d9e94e67465ceb3d3798bd69b67c28cd5613aefef018aead3e39b20fe5ed8d",
            ],
        )
        .await;
    }
}
