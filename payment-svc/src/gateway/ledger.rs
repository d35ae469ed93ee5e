//! The simulated gateway's ledger of keys: durable, and written outside the saga's transactions, because a real gateway
//! belongs to another company. Concurrent calls share a commit.

use crate::{domain::Operation, store};
use saga_messaging::batcher::{Batcher, BatcherSettings};
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::sync::Arc;
use tracing::warn;
use uuid::Uuid;

pub use crate::store::{LedgerDecision, LedgerEntry};

/// The number of calls that share a commit, and the number of concurrent commits.
const SETTINGS: BatcherSettings = BatcherSettings {
    batch_limit: 200,
    // Far above the calls' own concurrency limit, so that the ledger never refuses a call.
    queue_limit: 10_000,
    window: std::time::Duration::from_millis(8),
    in_flight: 2,
};

/// The ledger of keys and their decisions.
#[derive(Clone)]
pub struct Ledger {
    batcher: Batcher<LedgerEntry, LedgerEntry, Arc<sqlx::Error>>,
    pool: PgPool,
}

impl Ledger {
    /// Creates the ledger. Must be called inside a tokio runtime.
    pub fn new(pool: PgPool) -> Self {
        let writing = pool.clone();
        let batcher = Batcher::start("gateway-ledger", SETTINGS, move |entries| {
            let pool = writing.clone();
            async move {
                limited(store::record(&pool, entries))
                    .await
                    .map_err(Arc::new)
            }
        });
        Self { batcher, pool }
    }

    /// Returns how many calls of an order failed in any process, or `None` if the ledger is unavailable.
    pub async fn failures(&self, order_id: Uuid, operation: Operation) -> Option<u32> {
        match store::failures(&self.pool, order_id, operation).await {
            Ok(count) => Some(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the gateway's ledger is unavailable"
                );
                None
            }
        }
    }

    /// Stores the decision unless the key already has one, and returns the decision that counts. Returns `None` if it
    /// is unknown whether the decision was stored.
    pub async fn record(&self, entry: LedgerEntry) -> Option<LedgerEntry> {
        match self.batcher.submit(entry).await {
            Ok(first) => Some(first),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the gateway's ledger is unavailable"
                );
                None
            }
        }
    }

    /// Waits until all submitted decisions are written.
    pub async fn drain(&self) {
        self.batcher.drain().await;
    }
}
