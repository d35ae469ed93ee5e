//! The simulated gateway's memory of keys: durable, and written outside every transaction of the saga, as another
//! company's would be. Calls that arrive together share a commit.

use crate::{domain::Operation, store};
use saga_messaging::batcher::{Batcher, BatcherSettings};
use sqlx::PgPool;
use std::sync::Arc;
use tracing::warn;
use uuid::Uuid;

pub use crate::store::{LedgerDecision, LedgerEntry};

/// Calls that share a commit, and how many of those run at once.
const SETTINGS: BatcherSettings = BatcherSettings {
    batch_limit: 200,
    // Far above what the calls' own concurrency admits, so that it is never the ledger that refuses.
    queue_limit: 10_000,
    window: std::time::Duration::from_millis(8),
    in_flight: 2,
};

/// See the module.
#[derive(Clone)]
pub struct Ledger {
    batcher: Batcher<LedgerEntry, LedgerEntry, Arc<sqlx::Error>>,
    pool: PgPool,
}

impl Ledger {
    /// Must be called inside a tokio runtime.
    pub fn new(pool: PgPool) -> Self {
        let writing = pool.clone();
        let batcher = Batcher::start("gateway-ledger", SETTINGS, move |entries| {
            let pool = writing.clone();
            async move { store::record(&pool, entries).await.map_err(Arc::new) }
        });
        Self { batcher, pool }
    }

    /// How many calls of an order failed, whichever process made them. `None`: that cannot be told now.
    pub async fn failures(&self, order_id: Uuid, operation: Operation) -> Option<u32> {
        match store::failures(&self.pool, order_id, operation).await {
            Ok(count) => Some(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the gateway's ledger is away"
                );
                None
            }
        }
    }

    /// Keeps the decision unless the key has one, and returns the one that counts. `None`: it cannot be told whether
    /// anything was kept.
    pub async fn record(&self, entry: LedgerEntry) -> Option<LedgerEntry> {
        match self.batcher.submit(entry).await {
            Ok(first) => Some(first),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the gateway's ledger is away"
                );
                None
            }
        }
    }

    /// Waits until what was submitted is written.
    pub async fn drain(&self) {
        self.batcher.drain().await;
    }
}
