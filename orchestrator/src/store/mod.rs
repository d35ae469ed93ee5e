//! The orchestrator's tables, and the only SQL that accesses them.
//!
//! Statements are keyed by saga id, take whole batches as arrays in id order, and count the rows that they change.
//! Statements on partitioned tables carry the batch's least and greatest id, because `= ANY` alone does not prune
//! partitions.

mod action;
pub mod batch;
pub mod dead_letter;
pub mod definition;
pub mod floor;
pub mod history;
pub mod intake;
pub mod listing;
mod pg_store;
pub mod timer;

pub use action::{DecidedAction, action, actions_of};
pub use batch::PgBatch;
pub use pg_store::PgStore;

use saga_postgres::migrations;
use sqlx::migrate::Migrator;
use std::sync::LazyLock;

/// The migrations of the tables, which are forward-only.
pub static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    migrations::embedded(&[
        (
            1,
            "sagas",
            include_str!("../../../migrations/orchestrator/0001_sagas.sql"),
        ),
        (
            2,
            "floor",
            include_str!("../../../migrations/orchestrator/0002_floor.sql"),
        ),
        (
            3,
            "dead letters",
            include_str!("../../../migrations/orchestrator/0003_dead_letters.sql"),
        ),
    ])
});

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn migrations_are_those_of_the_folder() {
        saga_test_support::migrations::assert_embedded(
            &super::MIGRATIONS,
            concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/orchestrator"),
            &[
                "29eb634fb62e82806fca5419718350074f1cc1e519a10afb8fc5920d717baf01308858af5712e776ef161ea52f9215f0",
                "6c57c608d7041044786dad3f96d269c9c3ef7ea0f655fcf80c1cc68f4cadd54348becfadf79d0d2c0fd3986971aff761",
                "faa8d2acb9ef22f562c80b5d3adc51a332ce6ee424f09aec083d3aa4db5f836c7556d122d8734e21445ff1759a2da63e",
            ],
        )
        .await;
    }
}
