//! The orchestrator's tables, and the only SQL that touches them.
//!
//! Statements are keyed by saga id, take whole batches as arrays in id order, and count what they changed. Those on
//! partitioned tables carry the batch's least and greatest id, since `= ANY` alone does not prune.

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

use crate::engine::{cache::Cache, db_clock::DbClock, saga_store::SagaStore};
use async_trait::async_trait;
use saga_messaging::{partition::PartitionAlarm, rule::BatchError};
use sqlx::PgPool;
use std::sync::Arc;

/// Forward-only.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/orchestrator");

/// The store on Postgres. Clones share what they know of live sagas.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    reporting: PgPool,
    alarm: PartitionAlarm,
    cache: Cache,
    /// As its batches have read it.
    clock: Arc<DbClock>,
}

impl PgStore {
    /// `pool` makes plans certain (`saga_service::postgres::store_pool`) and serves the batches; `reporting` leaves the
    /// planner free and serves what reads many rows.
    pub fn new(pool: PgPool, reporting: PgPool) -> Self {
        Self {
            pool,
            reporting,
            alarm: PartitionAlarm::new(history::HISTORY.name),
            cache: Cache::default(),
            clock: Arc::default(),
        }
    }

    /// Raised while history lacks a partition that somebody needs.
    pub fn alarm(&self) -> &PartitionAlarm {
        &self.alarm
    }

    /// Nobody begins a transaction here whose future may be dropped, as that of a request is: the driver takes one that is
    /// dropped while it begins for none, and a batch's statement, which is a transaction if it is alone, would be part of
    /// it.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub fn reporting(&self) -> &PgPool {
        &self.reporting
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
