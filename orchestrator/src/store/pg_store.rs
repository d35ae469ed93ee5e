//! The store's connections, and the state that its batches share.

use super::history;
use crate::engine::{cache::Cache, db_clock::StoreClock};
use saga_messaging::partition::PartitionAlarm;
use sqlx::PgPool;
use std::sync::Arc;

/// The store on Postgres. Clones share the cache of live sagas.
#[derive(Clone)]
pub struct PgStore {
    pub(super) pool: PgPool,
    reporting: PgPool,
    pub(super) alarm: PartitionAlarm,
    pub(super) cache: Cache,
    pub(super) clock: Arc<StoreClock>,
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
