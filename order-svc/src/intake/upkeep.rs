//! Background tasks: refreshes the partition count, deletes expired keys, and counts pending orders.

use crate::store;
use metrics::gauge;
use saga_contracts::topic;
use saga_messaging::{kafka::KafkaWriter, log::LogError};
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The number of partitions of `saga.inputs` at the last refresh. The number is kept while the broker is unavailable,
/// so that orders are still accepted. If the topic has grown since, the new partitions are only not used yet.
#[derive(Clone, Debug, Default)]
pub struct Partitions(Arc<AtomicI32>);

impl Partitions {
    pub fn known(count: i32) -> Self {
        Self(Arc::new(AtomicI32::new(count)))
    }

    /// Returns the number of partitions, or `None` until the broker has been reached once.
    pub fn get(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| *count > 0)
    }

    fn set(&self, count: i32) {
        self.0.store(count, Ordering::Relaxed);
    }
}

/// The interval between two refreshes. Partitions are added by hand, and rarely.
const COUNT_EVERY: Duration = Duration::from_secs(30);
const PENDING_EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// The number of keys that one statement deletes, so that no statement holds its locks for long.
const FORGET_LIMIT: i64 = 10_000;
/// The count of pending orders stops at this number, so that counting does not slow down a service with a backlog.
const PENDING_BOUND: i64 = 100_000;

/// Refreshes the partition count. Orders can be accepted once the count is known.
pub async fn count_partitions(
    partitions: &Partitions,
    writer: &KafkaWriter,
) -> Result<(), LogError> {
    let count = writer.refresh_partition_count(topic::SAGA_INPUTS).await?;
    partitions.set(count);
    Ok(())
}

/// Refreshes the partition count periodically until `stop`.
pub async fn watch_partitions(
    partitions: Partitions,
    writer: KafkaWriter,
    stop: CancellationToken,
) {
    loop {
        let counted = tokio::select! {
            () = stop.cancelled() => return,
            counted = async {
                tokio::time::sleep(COUNT_EVERY).await;
                count_partitions(&partitions, &writer).await
            } => counted,
        };
        if let Err(error) = counted {
            warn!(
                error = &error as &dyn std::error::Error,
                messaging.kafka.topic = topic::SAGA_INPUTS,
                "the partitions cannot be counted"
            );
        }
    }
}

/// Deletes keys that are older than a day, and counts pending orders, until `stop`.
pub async fn tend_database(pool: PgPool, stop: CancellationToken) {
    let mut pending = interval(PENDING_EVERY);
    let mut forget = interval(FORGET_EVERY);
    pending.set_missed_tick_behavior(MissedTickBehavior::Delay);
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let result = tokio::select! {
            () = stop.cancelled() => return,
            _ = pending.tick() => limited(count_pending(&pool)).await,
            _ = forget.tick() => limited(forget_keys(&pool)).await,
        };
        if let Err(error) = result {
            warn!(
                error = &error as &dyn std::error::Error,
                "upkeep failed, it will be retried"
            );
        }
    }
}

async fn count_pending(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let count = store::order::count_pending(&mut connection, PENDING_BOUND).await?;
    gauge!("orders", "status" => "PENDING").set(count as f64);
    Ok(())
}

async fn forget_keys(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    while store::idempotency::forget(&mut connection, FORGET_LIMIT).await?
        >= FORGET_LIMIT.cast_unsigned()
    {}
    Ok(())
}
