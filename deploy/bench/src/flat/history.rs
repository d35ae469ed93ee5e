//! Loads history: real orders first, whose rows are then copied until there are as many ended sagas as are asked for.
//!
//! ```text
//!  orders through the services ─▶ ended ─▶ services stop ─▶ templates ─▶ partitions ─▶ COPY, table by table
//!                                                                                        side by side
//!                                                      statistics, checkpoint ◀── stock ◀────┘
//! ```

use super::{
    spread::Spread,
    tables::{self, Filled, Table},
    template::Known,
};
use crate::{
    progress::{say, update},
    scenario::Shop,
    system::{System, database, drop_empty},
};
use anyhow::{Context, Result, ensure};
use saga_e2e::system::Service;
use saga_messaging::{
    participant::inbox,
    partition::{Span, least_id},
};
use saga_service::clock;
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Enough that each way of ending has several.
const TEMPLATES: i64 = 300;
const TOLD_EVERY: Duration = Duration::from_secs(10);
const UPDATED_EVERY: Duration = Duration::from_secs(1);
/// What becomes of a reservation when its order is confirmed has been taken off the shelf, too: books add up.
const SELL: &str =
    "UPDATE stock SET sold = sold + loaded.pieces, received = received + loaded.pieces
  FROM (SELECT product_id, sum(quantity)::bigint AS pieces FROM reservation
        WHERE state = 'sold' AND order_id < $1 GROUP BY product_id) AS loaded
  WHERE stock.product_id = loaded.product_id";

/// What was loaded, and how it can be found again.
#[derive(Clone, Debug)]
pub struct History {
    pub spread: Spread,
    /// The sagas that all others are made from, in the order of their ids.
    pub templates: Vec<Uuid>,
    pub known: Known,
    pub loaded: Loaded,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    pub sagas: u64,
    pub days: i64,
    pub load_seconds: f64,
    /// Statistics, visibility and a checkpoint.
    pub settle_seconds: f64,
    /// By which the four databases have grown.
    pub bytes: i64,
    pub bytes_a_saga: f64,
    /// As they are now.
    pub database_bytes: i64,
    pub shared_buffers_bytes: i64,
    pub tables: Vec<Filled>,
}

impl History {
    /// Of a saga of history.
    pub fn id(&self, saga: u64) -> Uuid {
        let template = self.templates[self.spread.template(saga)];
        self.spread.change(saga).timed(template)
    }
}

/// The services are stopped, and all orders of `shop` have ended.
pub async fn load(
    system: &System,
    shop: &Shop,
    sagas: u64,
    days: i64,
    seed: u64,
) -> Result<History> {
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
        sagas,
        templates: templates.len() as u64,
        days,
        seed,
    };
    let tables = tables::look(system, &templates, &known).await?;
    let (bytes_before, _) = sizes(system).await?;
    make_room(system, days).await?;
    let began = Instant::now();
    fill(system, &tables, spread).await?;
    sell(system, known.began_ms).await?;
    let load_seconds = began.elapsed().as_secs_f64();
    update("  statistics and a checkpoint");
    let began = Instant::now();
    settle(system).await?;
    let settle_seconds = began.elapsed().as_secs_f64();
    check_rows(system, &tables, &spread).await?;
    let (database_bytes, shared_buffers_bytes) = sizes(system).await?;
    let mut filled = Vec::new();
    for table in &tables {
        filled.push(table.filled(system, &spread).await?);
    }
    let bytes = database_bytes - bytes_before;
    let loaded = Loaded {
        sagas,
        days,
        load_seconds,
        settle_seconds,
        bytes,
        bytes_a_saga: bytes as f64 / sagas as f64,
        database_bytes,
        shared_buffers_bytes,
        tables: filled,
    };
    Ok(History {
        spread,
        templates,
        known,
        loaded,
    })
}

async fn templates(system: &System) -> Result<Vec<Uuid>> {
    let mut connection = system.connect(&database(Service::Orchestrator)).await?;
    sqlx::query_scalar("SELECT id FROM saga_history ORDER BY id LIMIT $1")
        .bind(TEMPLATES)
        .fetch_all(&mut connection)
        .await
        .context("reading which sagas have ended")
}

/// History's partitions reach back as far as retention does from the first start on; the barrier's begin with the
/// database. Here they are made as upkeep would have made them day by day.
async fn make_room(system: &System, days: i64) -> Result<()> {
    let now_ms = clock::now().timestamp_millis();
    let width_ms = inbox::TABLE.width_ms;
    let wanted = Span::covering(now_ms - days * width_ms, now_ms, width_ms);
    for service in [Service::Order, Service::Inventory, Service::Payment] {
        let pool = pool(&system.url_of(&database(service))).await?;
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

/// Each table by one connection, in the order of ids; tables side by side.
async fn fill(system: &System, tables: &[Table], spread: Spread) -> Result<()> {
    let done = Arc::new(AtomicU64::new(0));
    let mut filling = JoinSet::new();
    for table in tables.iter().cloned() {
        let (url, done) = (system.url_of(&database(table.service)), Arc::clone(&done));
        filling.spawn(async move { table.fill(&url, &spread, &done).await });
    }
    let all = spread.sagas * tables.len() as u64;
    let (began, mut told) = (Instant::now(), Instant::now());
    loop {
        let share = done.load(Ordering::Relaxed) as f64 / all as f64;
        let text = format!(
            "  loading {} sagas: {:.0} % after {:.0} s",
            spread.sagas,
            100.0 * share,
            began.elapsed().as_secs_f64()
        );
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            say(&text);
        } else {
            update(&text);
        }
        match tokio::time::timeout(UPDATED_EVERY, filling.join_next()).await {
            Ok(Some(filled)) => filled.context("a table's loader")??,
            Ok(None) => return Ok(()),
            Err(_) => {}
        }
    }
}

async fn sell(system: &System, began_ms: i64) -> Result<()> {
    let mut connection = system.connect(&database(Service::Inventory)).await?;
    sqlx::query(SELL)
        .bind(least_id(began_ms))
        .execute(&mut connection)
        .await
        .context("taking what was sold off the shelf")?;
    Ok(())
}

/// What autovacuum and the checkpointer would have done in these days, so that they do not do it while we measure.
async fn settle(system: &System) -> Result<()> {
    for service in Service::ALL {
        let mut connection = system.connect(&database(service)).await?;
        sqlx::raw_sql("VACUUM (ANALYZE)")
            .execute(&mut connection)
            .await
            .with_context(|| format!("statistics of {}", database(service)))?;
        connection.close().await?;
    }
    let mut superuser = system.connect("postgres").await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut superuser).await?;
    Ok(())
}

async fn check_rows(system: &System, tables: &[Table], spread: &Spread) -> Result<()> {
    for table in tables {
        let mut connection = system.connect(&database(table.service)).await?;
        let found = table.count(&mut connection).await? - table.rows_before;
        let expected = table.rows_of(spread);
        ensure!(
            found.unsigned_abs() == expected,
            "{} of {}: {expected} rows were loaded, {found} are there",
            table.name,
            table.service.name()
        );
    }
    Ok(())
}

/// Of the four databases, and of Postgres's own memory.
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

/// How many sagas of before `at_ms` history still holds.
pub async fn count_before(system: &System, at_ms: i64) -> Result<i64> {
    let mut connection: PgConnection = system.connect(&database(Service::Orchestrator)).await?;
    let count = sqlx::query_scalar("SELECT count(*) FROM saga_history WHERE id < $1")
        .bind(least_id(at_ms))
        .fetch_one(&mut connection)
        .await?;
    Ok(count)
}

async fn pool(url: &str) -> Result<PgPool> {
    PgPoolOptions::new()
        .max_connections(1)
        .connect(url)
        .await
        .context("a connection for partitions")
}
