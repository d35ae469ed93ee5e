//! The table of ended sagas, and new home partitions for sagas whose home partition does not exist.

use saga_messaging::partition::PartitionedTable;
use sqlx::PgPool;

pub use saga_messaging::partition::least_id;

const WEEK_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// The table of ended sagas, with a partition a week. With few partitions, the locks of a statement stay within a
/// backend's fast path. Retention drops whole partitions.
pub const HISTORY: PartitionedTable = PartitionedTable {
    name: "saga_history",
    width_ms: WEEK_MS,
    lock: 0x7361_6761_6869_7374,
};

/// Gives sagas whose home partition does not exist another one, and returns how many. Their versions are raised, so
/// that a rival's batch runs again.
pub async fn rehome(pool: &PgPool, partitions: i32) -> Result<u64, sqlx::Error> {
    let moved = sqlx::query(
        "WITH lost AS (
           SELECT id FROM saga WHERE home_partition >= $1 OR home_partition < 0 ORDER BY id LIMIT 10000 FOR UPDATE)
         UPDATE saga s SET version = s.version + 1, home_partition = abs(s.home_partition % $1),
           state = jsonb_set(s.state::jsonb, '{home_partition}', to_jsonb(abs(s.home_partition % $1)))::json
         FROM lost WHERE s.id = lost.id",
    )
    .bind(partitions)
    .execute(pool)
    .await?;
    Ok(moved.rows_affected())
}
