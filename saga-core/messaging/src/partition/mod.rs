//! Tables that are partitioned by range of a saga's id: made ahead of time, dropped whole once they lie below a floor.
//!
//! ```text
//!   … ][ inbox_20261119 ][ inbox_20261120 ][ inbox_20261121 ][ … ][ inbox_20261128 ]
//!      dropped │ floor                              today            today + ahead
//! ```
//!
//! Ids are UUIDv7, so a range of ids is a range of time. There is no DEFAULT partition: it would have to be scanned
//! whenever another is added, and a row in it would block the partition that it belongs into. Where a partition is
//! missing an insert fails with SQLSTATE 23514 and no constraint's name: nothing is wrong with the row, so it is tried
//! again, and [`PartitionAlarm`] has the partition made meanwhile.
//!
//! Retention must not let a saga run that it has forgotten. A floor is therefore stored *before* anything below it is
//! dropped, and nothing is dropped while a transaction lives that may have read an older one
//! ([`PartitionedTable::drop_below`] after [`Settled::is_settled`]). Raising and dropping are steps of different rounds of
//! upkeep, so nobody waits for anybody.

mod alarm;
mod settled;
mod span;
mod store;

pub use alarm::{PartitionAlarm, is_missing_partition};
pub use settled::Settled;
pub use span::{Span, least_id};
pub use store::Partition;

use metrics::counter;
use sqlx::{Connection, PgPool};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, info};

/// How long the traffic of a table may stand behind a drop, which waits for whoever uses the table: usually the batches
/// under way. Doubled with each try, for a machine so busy that they take longer; what is left after the last one is for
/// the next round.
const DROP_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
const DROP_TRIES: u32 = 4;
const DROP_PAUSE: Duration = Duration::from_millis(500);

/// A table partitioned by range of its leading UUIDv7.
#[derive(Clone, Copy, Debug)]
pub struct PartitionedTable {
    pub name: &'static str,
    /// Of partitions to be made; those that stand keep theirs.
    pub width_ms: i64,
    /// Key of the advisory lock under which partitions are made and dropped.
    pub lock: i64,
}

/// Up to where partitions stand without a gap from `from_ms` on; that itself if it has none.
pub fn reach_of(stand: &[Partition], from_ms: i64) -> i64 {
    let spans: Vec<Span> = stand.iter().map(|partition| partition.span).collect();
    span::reach(&spans, from_ms)
}

/// What became of the partitions below a floor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub partitions: Vec<String>,
    /// Still there: somebody reads the table for longer than its traffic should wait.
    pub left: usize,
    /// The longest that the table was locked, the waiting for the lock included.
    pub longest_lock: Duration,
}

impl PartitionedTable {
    /// The partitions that stand, in the order of their ranges.
    pub async fn partitions(&self, pool: &PgPool) -> Result<Vec<Partition>, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        store::list(&mut connection, self.name).await
    }

    /// Makes what is missing in `wanted`, gaps included, and says how many partitions that were. Safe while other
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

    /// Drops every partition that lies wholly below `floor_ms`, each in a transaction of its own. The floor must be
    /// settled, see [`Settled`].
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

    /// `false`: somebody uses the table for longer than others should wait behind us.
    async fn drop_one(
        &self,
        pool: &PgPool,
        partition: &str,
        patience: Duration,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = pool.begin().await?;
        match store::drop(&mut tx, self, partition, patience).await {
            Ok(()) => {
                tx.commit().await?;
                Ok(true)
            }
            Err(error) if store::is_lock_timeout(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
