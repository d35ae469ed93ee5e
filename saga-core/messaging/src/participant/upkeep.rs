//! Keeps the barrier's partitions ahead of time.

use super::inbox;
use metrics::gauge;
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Often enough that a day is never missed.
const INTERVAL: Duration = Duration::from_hours(1);
const RETRY: Duration = Duration::from_secs(5);
/// Fewer days than this left, and it cannot wait until Monday.
const ALARM_DAYS: i64 = 3;

/// Returns when the partitions stand, or at `shutdown`. A database that is away is waited for: so is everything else.
pub(super) async fn first(pool: &PgPool, ahead_days: u32, shutdown: &CancellationToken) {
    while !once(pool, ahead_days).await {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Until `shutdown`.
pub(super) async fn run(pool: PgPool, ahead_days: u32, shutdown: CancellationToken) {
    let mut wait = INTERVAL;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = if once(&pool, ahead_days).await {
            INTERVAL
        } else {
            RETRY
        };
    }
}

async fn once(pool: &PgPool, ahead_days: u32) -> bool {
    let Err(failed) = inbox::ensure_partitions(pool, ahead_days).await else {
        return true;
    };
    warn!(
        error = &failed as &dyn std::error::Error,
        "partitions of the barrier cannot be made now, trying again"
    );
    if let Ok(days) = inbox::days_ahead(pool).await {
        gauge!("saga_inbox_partitions_ahead_days").set(days as f64);
        if days < ALARM_DAYS {
            error!(
                days,
                "the barrier's partitions run out: no command can be handled then"
            );
        }
    }
    false
}
