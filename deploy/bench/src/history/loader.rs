//! Loads history: real orders run first, then their rows are copied until there are as many ended sagas as wanted.
//!
//! ```text
//!  orders through the services ─▶ ended ─▶ services stop ─▶ templates ─▶ partitions ─▶ COPY, table by table
//!                                                                                        side by side
//!                                                      statistics, checkpoint ◀── stock ◀────┘
//! ```

use super::{
    spread::Spread,
    tables::{self, Table},
    template::Known,
};
use crate::{
    bench::Bench,
    options::HistoryOptions,
    progress::{say, update},
    report::{Cell, Report, heads},
    scenario::Shop,
    system::{System, database, drop_empty},
};
use anyhow::{Context, Result};
use saga_harness::system::Service;
use saga_messaging::partition::{Span, least_id};
use saga_participant::inbox;
use saga_service::clock;
use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// The number of templates: enough that each way of ending has several.
const TEMPLATES: i64 = 300;
/// How many times `shared_buffers` the databases must be. Below this, all of them may be in memory, which shows
/// nothing.
const SHARED_BUFFERS_TIMES: f64 = 10.0;
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Takes the pieces of confirmed orders from stock, too, so that stock and reservations add up.
const SELL: &str =
    "UPDATE stock SET sold = sold + loaded.pieces, received = received + loaded.pieces
  FROM (SELECT product_id, sum(quantity)::bigint AS pieces FROM reservation
        WHERE state = 'sold' AND order_id < $1 GROUP BY product_id) AS loaded
  WHERE stock.product_id = loaded.product_id";

/// The history that was loaded, and how its rows can be found again.
#[derive(Clone, Debug)]
pub struct History {
    pub spread: Spread,
    /// The sagas from which all others are copied, in the order of their ids.
    pub templates: Vec<Uuid>,
    pub known: Known,
}

/// How long loading took, and how large the databases are.
#[derive(Clone, Copy, Debug, Default)]
struct Loaded {
    load_seconds: f64,
    /// The time that statistics, the visibility map and a checkpoint took.
    settle_seconds: f64,
    /// The bytes by which the four databases have grown.
    bytes: i64,
    /// The size of the four databases after loading.
    database_bytes: i64,
    shared_buffers_bytes: i64,
}

impl History {
    /// Returns the id of a saga of history.
    pub fn id(&self, saga: u64) -> Uuid {
        let template = self.templates[self.spread.template(saga)];
        self.spread.change(saga).timed(template)
    }
}

/// Describes how large history is, and whether it is large enough to show anything.
fn size(spread: &Spread, loaded: &Loaded) -> String {
    let times = loaded.database_bytes as f64 / loaded.shared_buffers_bytes as f64;
    let mut text = format!(
        "{} sagas that ended within {} days were loaded in {:.0} s and settled in {:.0} s: {} bytes a saga, {:.2} GiB in \
         all, {times:.1} times shared_buffers.",
        Cell::from(spread.sagas),
        spread.days,
        loaded.load_seconds,
        loaded.settle_seconds,
        Cell::Whole(loaded.bytes as f64 / spread.sagas as f64),
        loaded.database_bytes as f64 / f64::from(1 << 30),
    );
    if times < SHARED_BUFFERS_TIMES {
        write!(text, " That is less than {SHARED_BUFFERS_TIMES:.0} times: too little to show that size does not matter.")
            .expect("a String takes any text");
    }
    text
}

/// Loads history, and describes it. The services must be stopped, and all orders of `shop` must have ended.
pub async fn load(
    bench: &Bench<'_>,
    shop: &Shop,
    own: &HistoryOptions,
    report: &mut Report,
) -> Result<History> {
    let system = &*bench.system;
    let templates = templates(system).await?;
    let first = templates.first().context("no saga has ended")?;
    let known = Known {
        began_ms: (first.as_u128() >> 80) as i64,
        customers: shop.customers.iter().copied().collect(),
        shared: [shop.products.as_slice(), &shop.sold_out]
            .concat()
            .into_iter()
            .collect(),
    };
    let spread = Spread {
        sagas: own.history,
        templates: templates.len() as u64,
        days: own.days,
        seed: bench.seed,
    };
    let tables = tables::look(system, &templates, &known).await?;
    let (bytes_before, _) = sizes(system).await?;
    make_room(system, own.days).await?;
    let began = Instant::now();
    fill(system, &tables, spread).await?;
    sell(system, known.began_ms).await?;
    let load_seconds = began.elapsed().as_secs_f64();
    update("  statistics and a checkpoint");
    let began = Instant::now();
    settle(system).await?;
    let settle_seconds = began.elapsed().as_secs_f64();
    let (database_bytes, shared_buffers_bytes) = sizes(system).await?;
    let loaded = Loaded {
        load_seconds,
        settle_seconds,
        bytes: database_bytes - bytes_before,
        database_bytes,
        shared_buffers_bytes,
    };
    let mut rows = Vec::new();
    for table in &tables {
        rows.push(table.describe(system, &spread).await?);
    }
    let heads = heads("table | rows | rows a saga | MiB with indexes");
    report.table(size(&spread, &loaded), heads, rows);
    Ok(History {
        spread,
        templates,
        known,
    })
}

async fn templates(system: &System) -> Result<Vec<Uuid>> {
    let mut connection = system.database_of(Service::Orchestrator).await?;
    sqlx::query_scalar("SELECT id FROM saga_history ORDER BY id LIMIT $1")
        .bind(TEMPLATES)
        .fetch_all(&mut connection)
        .await
        .context("reading which sagas have ended")
}

/// Creates the inboxes' partitions for the days of history, as upkeep would have created them day by day. History's own
/// partitions reach back as far as retention from the first start on, but the inboxes' begin with the database.
async fn make_room(system: &System, days: i64) -> Result<()> {
    let now_ms = clock::now().timestamp_millis();
    let width_ms = inbox::TABLE.width_ms;
    let wanted = Span::covering(now_ms - days * width_ms, now_ms, width_ms);
    for service in [Service::Order, Service::Inventory, Service::Payment] {
        let pool = system.pool_of(service).await?;
        for partition in inbox::TABLE.partitions(&pool).await? {
            if partition.span.from_ms.is_none() {
                drop_empty(&pool, &partition.name).await?;
            }
        }
        inbox::TABLE.make(&pool, wanted).await?;
        let before = Span {
            from_ms: None,
            to_ms: wanted.from_ms.unwrap_or_default(),
        };
        inbox::TABLE.make(&pool, before).await?;
        pool.close().await;
    }
    Ok(())
}

/// Fills each table by one connection, in the order of ids. The tables are filled concurrently.
async fn fill(system: &System, tables: &[Table], spread: Spread) -> Result<()> {
    let done = Arc::new(AtomicU64::new(0));
    let mut filling = JoinSet::new();
    for table in tables.iter().cloned() {
        let (url, done) = (system.url_of(&database(table.service)), Arc::clone(&done));
        filling.spawn(async move { table.fill(&url, &spread, &done).await });
    }
    let all = spread.sagas * tables.len() as u64;
    let began = Instant::now();
    loop {
        match tokio::time::timeout(TOLD_EVERY, filling.join_next()).await {
            Ok(Some(filled)) => filled.context("a table's loader")??,
            Ok(None) => return Ok(()),
            Err(_) => say(&format!(
                "  loading {} sagas: {:.0} % after {:.0} s",
                spread.sagas,
                100.0 * done.load(Ordering::Relaxed) as f64 / all as f64,
                began.elapsed().as_secs_f64()
            )),
        }
    }
}

async fn sell(system: &System, began_ms: i64) -> Result<()> {
    let mut connection = system.database_of(Service::Inventory).await?;
    sqlx::query(SELL)
        .bind(least_id(began_ms))
        .execute(&mut connection)
        .await
        .context("taking the sold pieces from stock")?;
    Ok(())
}

/// Runs VACUUM, ANALYZE and a checkpoint. Autovacuum and the checkpointer would have done this in the days of history,
/// and must not do it during the measurement.
async fn settle(system: &System) -> Result<()> {
    for service in Service::ALL {
        let statement = "VACUUM (ANALYZE)".to_owned();
        system.execute(&database(service), [statement]).await?;
    }
    system.execute("postgres", ["CHECKPOINT".to_owned()]).await
}

/// Returns the size of the four databases, and that of `shared_buffers`, in bytes.
async fn sizes(system: &System) -> Result<(i64, i64)> {
    let mut connection = system.connect("postgres").await?;
    let found = sqlx::query_as(
        "SELECT sum(pg_database_size(datname))::bigint, pg_size_bytes(current_setting('shared_buffers'))
         FROM pg_database WHERE datname = ANY($1)",
    )
    .bind(Service::ALL.map(database).to_vec())
    .fetch_one(&mut connection)
    .await?;
    Ok(found)
}

/// Returns how many sagas from before `at_ms` history still holds.
pub async fn count_before(system: &System, at_ms: i64) -> Result<i64> {
    let mut connection = system.database_of(Service::Orchestrator).await?;
    let count = sqlx::query_scalar("SELECT count(*) FROM saga_history WHERE id < $1")
        .bind(least_id(at_ms))
        .fetch_one(&mut connection)
        .await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_fits_into_memory_is_said_to_show_nothing() {
        let spread = Spread {
            sagas: 1_000,
            templates: 1,
            days: 1,
            seed: 1,
        };
        let size = |database_bytes| {
            let loaded = Loaded {
                bytes: 2_500_000,
                database_bytes,
                shared_buffers_bytes: 1 << 30,
                ..Loaded::default()
            };
            size(&spread, &loaded)
        };
        assert!(size(9 << 30).contains("too little"));
        let enough = size(11 << 30);
        assert!(!enough.contains("too little"), "{enough}");
        assert!(enough.contains("2,500 bytes a saga"), "{enough}");
    }
}
