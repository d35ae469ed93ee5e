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
pub mod timer;

pub use action::{DecidedAction, action, actions_of};
pub use batch::PgBatch;

use crate::{
    engine::{
        cache::Cache,
        db_clock::StoreClock,
        saga_store::{CatalogError, DefinitionStore, SagaStore},
    },
    registry::Catalog,
};
use async_trait::async_trait;
use saga_messaging::{consumer::BatchError, partition::PartitionAlarm};
use saga_postgres::migrations;
use sqlx::{PgPool, migrate::Migrator};
use std::sync::{Arc, LazyLock};

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

/// The store on Postgres. Clones share the cache of live sagas.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    reporting: PgPool,
    alarm: PartitionAlarm,
    cache: Cache,
    clock: Arc<StoreClock>,
}

impl PgStore {
    /// Creates a store. `pool` fixes the query plans (`saga_postgres::store_pool`) and serves the batches;
    /// `reporting` leaves the planner free and serves statements that read many rows.
    pub fn new(pool: PgPool, reporting: PgPool) -> Self {
        Self {
            pool,
            reporting,
            alarm: PartitionAlarm::new(history::HISTORY.name),
            cache: Cache::default(),
            clock: Arc::default(),
        }
    }

    /// Returns the alarm that is raised while history lacks a partition for a row.
    pub fn alarm(&self) -> &PartitionAlarm {
        &self.alarm
    }

    /// Returns the pool that serves the batches. Do not begin transactions on it from cancellable futures (HTTP
    /// handlers): sqlx loses track of a `BEGIN` whose future is dropped. The next batch's single statement, which is a
    /// transaction of its own, would then be part of that transaction.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub fn reporting(&self) -> &PgPool {
        &self.reporting
    }
}

#[async_trait]
impl DefinitionStore for PgStore {
    async fn catalog(&self) -> Result<Catalog, CatalogError> {
        definition::catalog(&self.reporting)
            .await
            .map_err(|error| CatalogError(Box::new(error)))
    }
}

#[async_trait]
impl SagaStore for PgStore {
    type Batch = PgBatch;

    async fn begin(&self) -> Result<PgBatch, BatchError> {
        Ok(PgBatch::new(self.clone()))
    }

    fn forget(&self) {
        self.cache.forget();
    }
}

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
