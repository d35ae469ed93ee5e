//! Tables that are partitioned by ranges of saga ids. Partitions are created ahead of time, and dropped whole once they
//! lie below a floor.
//!
//! ```text
//!   … ][ inbox_20261119 ][ inbox_20261120 ][ inbox_20261121 ][ … ][ inbox_20261128 ]
//!      dropped │ floor                              today            today + ahead
//! ```
//!
//! Ids are UUIDv7, so a range of ids is a range of time. There is no DEFAULT partition: it would have to be scanned
//! whenever another partition is added, and a row in it would block the partition that it belongs to. If a partition is
//! missing, an insert fails with SQLSTATE 23514 and without a constraint's name. The row itself is valid, so the insert
//! is retried, and [`PartitionAlarm`] has the partition created meanwhile.
//!
//! Retention must not let a forgotten saga run again. A floor is therefore stored *before* anything below it is
//! dropped, and nothing is dropped while a transaction lives that may have read an older floor
//! ([`PartitionedTable::drop_below`] after [`CommittedValue::visible_to_all`]). Raising and dropping are steps of
//! different rounds of upkeep, so neither waits for the other.

mod alarm;
mod committed_value;
mod span;
mod store;

pub use alarm::{PartitionAlarm, is_missing_partition};
pub use committed_value::CommittedValue;
pub use span::{Span, least_id};
pub use store::Partition;

use metrics::counter;
use sqlx::{Connection, PgPool};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info};

/// How long a table's traffic may wait behind a drop, which itself waits for the transactions that use the table:
/// usually batches in flight. The time is doubled with each attempt, for a machine so busy that batches take longer.
/// Partitions that are left after the last attempt are dropped in the next round.
const DROP_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
const DROP_TRIES: u32 = 4;
const DROP_PAUSE: Duration = Duration::from_millis(500);

/// A table partitioned by range of its leading UUIDv7.
#[derive(Clone, Copy, Debug)]
pub struct PartitionedTable {
    pub name: &'static str,
    /// Width of new partitions, in milliseconds; existing partitions keep theirs.
    pub width_ms: i64,
    /// Key of the advisory lock under which partitions are created and dropped.
    pub lock: i64,
}

/// Returns up to where partitions exist without a gap from `from_ms` on; `from_ms` itself if there are none.
pub fn reach_of(stand: &[Partition], from_ms: i64) -> i64 {
    let spans: Vec<Span> = stand.iter().map(|partition| partition.span).collect();
    span::reach(&spans, from_ms)
}

/// The result of dropping the partitions below a floor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub partitions: Vec<String>,
    /// Number of partitions that still exist, because a transaction uses the table for longer than its traffic should
    /// wait.
    pub left: usize,
    /// Longest time for which the table was locked, including the wait for the lock.
    pub longest_lock: Duration,
}

impl PartitionedTable {
    /// Returns the existing partitions in the order of their ranges.
    pub async fn partitions(&self, pool: &PgPool) -> Result<Vec<Partition>, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        store::list(&mut connection, self.name).await
    }

    /// Creates the missing partitions in `wanted`, including gaps, and returns their number. This is safe while other
    /// processes do the same, and beside transactions that use the table.
    pub async fn make(&self, pool: &PgPool, wanted: Span) -> Result<usize, sqlx::Error> {
        let missing = |stand: &[Partition]| {
            let stand: Vec<Span> = stand.iter().map(|partition| partition.span).collect();
            span::missing(&stand, wanted, self.width_ms)
        };
        let mut connection = pool.acquire().await?;
        if missing(&store::list(&mut connection, self.name).await?).is_empty() {
            return Ok(0);
        }
        let mut tx = connection.begin().await?;
        store::lock(&mut tx, self.lock).await?;
        let spans = missing(&store::list(&mut tx, self.name).await?);
        for span in &spans {
            let name = store::make(&mut tx, self.name, *span, self.width_ms).await?;
            debug!(table = self.name, partition = name, "a partition is made");
        }
        tx.commit().await?;
        Ok(spans.len())
    }

    /// Drops every partition that lies wholly below `floor_ms`, each in a separate transaction. The floor must be
    /// visible to all transactions, see [`CommittedValue`].
    pub async fn drop_below(&self, pool: &PgPool, floor_ms: i64) -> Result<Dropped, sqlx::Error> {
        let below: Vec<Partition> = self
            .partitions(pool)
            .await?
            .into_iter()
            .filter(|partition| partition.span.to_ms <= floor_ms)
            .collect();
        let mut dropped = Dropped::default();
        let mut tries = 0;
        let mut waiting = below.iter();
        let mut next = waiting.next();
        while let Some(partition) = next {
            let began = Instant::now();
            let patience = DROP_LOCK_TIMEOUT * 2_u32.pow(tries);
            let gone = self.drop_one(pool, &partition.name, patience).await?;
            dropped.longest_lock = dropped.longest_lock.max(began.elapsed());
            if gone {
                info!(
                    table = self.name,
                    partition = partition.name,
                    lock_ms = began.elapsed().as_millis() as u64,
                    "a partition below the floor is dropped"
                );
                counter!("saga_partitions_dropped_total", "table" => self.name).increment(1);
                dropped.partitions.push(partition.name.clone());
                next = waiting.next();
                continue;
            }
            tries += 1;
            if tries == DROP_TRIES {
                break;
            }
            tokio::time::sleep(DROP_PAUSE).await;
        }
        dropped.left = below.len() - dropped.partitions.len();
        Ok(dropped)
    }

    /// Drops a partition. Returns `false` if a transaction uses the table for longer than other traffic should wait.
    async fn drop_one(
        &self,
        pool: &PgPool,
        partition: &str,
        patience: Duration,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = pool.begin().await?;
        match store::drop(&mut tx, self.name, self.lock, partition, patience).await {
            Ok(()) => {
                tx.commit().await?;
                Ok(true)
            }
            Err(error) if store::is_lock_timeout(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
