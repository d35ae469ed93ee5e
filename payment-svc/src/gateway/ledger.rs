//! The simulated gateway's memory of keys: durable, and written outside every transaction of the saga, as another
//! company's would be. Calls that arrive together share a commit.

use crate::store;
use saga_messaging::batcher::{Batcher, BatcherSettings};
use sqlx::PgPool;
use std::sync::Arc;
use tracing::warn;

pub use crate::store::{LedgerDecision, LedgerEntry};

/// Calls that share a commit, and how many of those run at once.
const SETTINGS: BatcherSettings = BatcherSettings {
    batch_limit: 200,
    // Far above what the calls' own concurrency admits, so that it is never the ledger that refuses.
    queue_limit: 10_000,
    window: std::time::Duration::from_millis(2),
    in_flight: 2,
};

/// See the module.
#[derive(Clone)]
pub struct Ledger {
    batcher: Batcher<LedgerEntry, LedgerEntry, Arc<sqlx::Error>>,
}

impl Ledger {
    /// Must be called inside a tokio runtime.
    pub fn new(pool: PgPool) -> Self {
        let batcher = Batcher::start("gateway-ledger", SETTINGS, move |entries| {
            let pool = pool.clone();
            async move { store::record(&pool, entries).await.map_err(Arc::new) }
        });
        Self { batcher }
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
