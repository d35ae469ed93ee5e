//! Creates old partitions with rows in them, whose ends retention reaches while load is on.
//!
//! ```text
//!   … aged 1 ][ aged 2 ][ aged 3 ][ … empty, up to the existing ones … ][ today ]
//!             ▲         ▲         ▲
//!            one after the other now − retention passes here, under load
//! ```
//!
//! The product's own code creates and attaches them. They hold copies of rows that real sagas have just left, under ids
//! of the partition's time. The services are stopped meanwhile, and the empty partitions of that time are dropped
//! first.
//!
//! One thing differs from production: these partitions do not end where weeks do. Once the first one of history is
//! dropped, the orchestrator's upkeep takes the rest of its week for a gap, closes it with an empty partition, and
//! drops that in the same round. This is a drop every half minute, which shows among the waits, and in the times that
//! count as quiet.

use crate::system::{System, database, drop_empty};
use anyhow::{Context, Result, ensure};
use orchestrator::store::history::HISTORY;
use saga_harness::system::Service;
use saga_messaging::partition::{Partition, PartitionedTable, Span};
use saga_participant::inbox;
use sqlx::{AssertSqlSafe, PgPool};
use std::time::Duration;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// Rows that are copied again and again: enough that neighboring rows differ.
const SOURCE_ROWS: i64 = 1_000;

/// A table of which retention drops partitions.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    service: Service,
    partitioned: PartitionedTable,
    /// Inserts `$1` rows with ids from the millisecond `$2` up to before `$3`, copied from at most `$4` rows.
    copy: &'static str,
}

pub const TABLES: [Table; 4] = [
    Table {
        service: Service::Orchestrator,
        partitioned: HISTORY,
        copy: include_str!("history.sql"),
    },
    inbox(Service::Order),
    inbox(Service::Inventory),
    inbox(Service::Payment),
];

const fn inbox(service: Service) -> Table {
    Table {
        service,
        partitioned: inbox::TABLE,
        copy: include_str!("inbox.sql"),
    }
}

/// The partitions that are to be created.
#[derive(Clone, Copy, Debug)]
pub struct Aging {
    /// Partitions of each table.
    pub partitions: u32,
    /// Rows of each partition.
    pub rows: u32,
    /// Time until retention reaches the end of the first partition; negative if it already has.
    pub lead_ms: i64,
    /// Time between the ends of two successive partitions.
    pub spacing: Duration,
}

/// A partition that will be dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Aged {
    pub service: &'static str,
    pub database: String,
    pub partition: String,
    pub rows: i64,
    pub mib: f64,
    /// When the partition is as old as the retention, in milliseconds since the Unix epoch.
    pub due_ms: i64,
}

/// Creates the partitions of all tables, and returns them in the order of their ends. The services must be stopped.
pub async fn age(system: &System, aging: Aging) -> Result<Vec<Aged>> {
    let (now_ms, retention_ms) = retention(system).await?;
    let spans = spans(now_ms + aging.lead_ms - retention_ms, aging);
    let [history, order, inventory, payment] = TABLES;
    let one = |table: Table| age_one(system, table, aging.rows, &spans, retention_ms);
    let (history, order, inventory, payment) =
        tokio::try_join!(one(history), one(order), one(inventory), one(payment))?;
    let mut all = [history, order, inventory, payment].concat();
    all.sort_by_key(|aged| aged.due_ms);
    Ok(all)
}

/// Returns the time span of the rows of each partition. Partitions end where their spans do.
fn spans(first_ms: i64, aging: Aging) -> Vec<(i64, i64)> {
    let spacing_ms = aging.spacing.as_millis() as i64;
    (0..i64::from(aging.partitions))
        .map(|number| first_ms + number * spacing_ms)
        .map(|end_ms| (end_ms - spacing_ms, end_ms))
        .collect()
}

/// Returns the database's time and the retention, both in milliseconds. The retention is the whole days by which the
/// orchestrator's floor (its low-water mark) is behind, so it is right however the orchestrator is configured.
async fn retention(system: &System) -> Result<(i64, i64)> {
    let mut connection = system.database_of(Service::Orchestrator).await?;
    let (now_ms, starts_from_ms): (i64, i64) = sqlx::query_as(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, starts_from_ms FROM floor",
    )
    .fetch_one(&mut connection)
    .await
    .context("the orchestrator's floor")?;
    let retention_ms = (now_ms - starts_from_ms) / DAY_MS * DAY_MS;
    ensure!(retention_ms > 0, "the orchestrator has no retention");
    Ok((now_ms, retention_ms))
}

async fn age_one(
    system: &System,
    table: Table,
    rows: u32,
    spans: &[(i64, i64)],
    retention_ms: i64,
) -> Result<Vec<Aged>> {
    let database = database(table.service);
    let pool = system.pool_of(table.service).await?;
    make(&pool, &table.partitioned, spans).await?;
    for (from_ms, to_ms) in spans {
        sqlx::query(table.copy)
            .bind(i64::from(rows))
            .bind(from_ms)
            .bind(to_ms)
            .bind(SOURCE_ROWS)
            .execute(&pool)
            .await
            .with_context(|| format!("aging {}", table.partitioned.name))?;
    }
    let last_ms = spans.last().map_or(0, |span| span.1);
    let mut all = Vec::new();
    for partition in below(table.partitioned.partitions(&pool).await?, last_ms) {
        let (rows, bytes) = settle(&pool, &partition.name).await?;
        all.push(Aged {
            service: table.service.name(),
            database: database.clone(),
            partition: partition.name,
            rows,
            mib: bytes as f64 / f64::from(1 << 20),
            due_ms: partition.span.to_ms + retention_ms,
        });
    }
    ensure!(
        all.iter().map(|aged| aged.rows).sum::<i64>() > 0,
        "{database}: there were no rows to copy"
    );
    pool.close().await;
    Ok(all)
}

fn below(mut all: Vec<Partition>, end_ms: i64) -> Vec<Partition> {
    all.retain(|one| one.span.to_ms <= end_ms);
    all
}

/// Drops the empty partitions that are in the way, creates the new ones, and closes the gap to the existing ones.
async fn make(pool: &PgPool, table: &PartitionedTable, spans: &[(i64, i64)]) -> Result<()> {
    let first_ms = spans.first().map_or(0, |span| span.0);
    let last_ms = spans.last().map_or(0, |span| span.1);
    let mut from_ms = Some(first_ms);
    let mut reach_ms = last_ms;
    for partition in table.partitions(pool).await? {
        if partition.span.from_ms.unwrap_or(i64::MIN) < last_ms {
            drop_empty(pool, &partition.name).await?;
            // If the dropped partition had an open beginning, the new one has, too.
            let begins = partition.span.from_ms.zip(from_ms);
            from_ms = begins.map(|(theirs, ours)| theirs.min(ours));
            reach_ms = reach_ms.max(partition.span.to_ms);
        }
    }
    let mut begin = from_ms;
    for end_ms in spans.iter().map(|span| span.1).chain([reach_ms]) {
        let wanted = Span {
            from_ms: begin,
            to_ms: end_ms,
        };
        table.make(pool, wanted).await?;
        begin = Some(end_ms);
    }
    Ok(())
}

/// Vacuums, freezes and analyzes a partition, so that autovacuum has nothing left to do, as in one that is weeks old.
/// Returns its number of rows and its size in bytes.
async fn settle(pool: &PgPool, partition: &str) -> Result<(i64, i64)> {
    let quoted = partition.replace('"', "\"\"");
    let statement = format!("VACUUM (FREEZE, ANALYZE) \"{quoted}\"");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(pool)
        .await?;
    let question = format!(
        "SELECT count(*), pg_total_relation_size('\"{}\"') FROM \"{quoted}\"",
        quoted.replace('\'', "''")
    );
    Ok(sqlx::query_as(AssertSqlSafe(question))
        .fetch_one(pool)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_end_one_after_the_other_and_their_rows_lie_before() {
        let aging = Aging {
            partitions: 3,
            rows: 1,
            lead_ms: 0,
            spacing: Duration::from_mins(1),
        };
        let expected = [
            (940_000, 1_000_000),
            (1_000_000, 1_060_000),
            (1_060_000, 1_120_000),
        ];
        assert_eq!(spans(1_000_000, aging), expected);
    }

    #[test]
    fn partitions_beyond_the_last_end_are_not_aged() {
        let partition = |name: &str, to_ms| Partition {
            name: name.to_owned(),
            span: Span {
                from_ms: None,
                to_ms,
            },
        };
        let stand = vec![
            partition("old", 10),
            partition("last", 20),
            partition("today", 30),
        ];
        let found: Vec<String> = below(stand, 20).into_iter().map(|one| one.name).collect();
        assert_eq!(found, ["old", "last"]);
    }
}
