//! Tests that the records staged in a committed transaction are published, and no others.

use crate::{Bench, SOON, numbers, take, texts};
use async_trait::async_trait;
use saga_core::message::OutgoingRecord;
use saga_messaging::{
    log::{Delivered, LogError, LogReader, LogWriter},
    migrations,
    outbox::{Outbox, Relay, RelaySettings, StagedBatch},
};
use saga_test_support::environment::{TestEnv, until};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A log that can be made unavailable.
#[derive(Clone)]
struct Switch<W> {
    log: W,
    unavailable: Arc<AtomicBool>,
}

#[async_trait]
impl<W: LogWriter> LogWriter for Switch<W> {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(LogError::Unavailable("away".into()));
        }
        self.log.publish_rest(records, delivered).await
    }
}

struct Shop {
    bench: Bench,
    pool: PgPool,
    outbox: Outbox,
    relay: Relay,
    unavailable: Arc<AtomicBool>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

const QUICK: RelaySettings = RelaySettings {
    lease: Duration::from_millis(1_500),
    sweep: Duration::from_millis(100),
};

pub async fn database() -> PgPool {
    let url = TestEnv::shared().await.create_database("outbox").await;
    let pool = PgPool::connect(&url).await.unwrap();
    migrations::apply(&pool).await.unwrap();
    pool
}

impl Shop {
    async fn open(name: &str, settings: RelaySettings) -> Self {
        let bench = Bench::new(name, 1).await;
        let unavailable = Arc::new(AtomicBool::new(false));
        let log = Switch {
            log: bench.writer.clone(),
            unavailable: Arc::clone(&unavailable),
        };
        let (pool, stop) = (database().await, CancellationToken::new());
        let (outbox, relay, running) = Relay::new(pool.clone(), log, settings, stop.clone());
        Self {
            bench,
            pool,
            outbox,
            relay,
            unavailable,
            stop,
            running: tokio::spawn(running),
        }
    }

    fn records(&self, numbers: std::ops::Range<i32>) -> Vec<OutgoingRecord> {
        numbers
            .map(|number| self.bench.record(Some(0), &number.to_string()))
            .collect()
    }

    async fn staged(&self, numbers: std::ops::Range<i32>) -> StagedBatch {
        let mut transaction = self.pool.begin().await.unwrap();
        let staged = self
            .outbox
            .stage(&mut *transaction, &self.records(numbers))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        staged
    }

    async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn until_empty(&self) {
        until("the outbox is empty", SOON, async || self.rows().await == 0).await;
    }

    async fn read(&self, count: usize) -> Vec<String> {
        let mut reader = self.bench.reader();
        let records = take(&mut reader, count).await;
        reader.close().await;
        texts(&records)
    }

    async fn close(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn batches_are_published_in_order_and_their_rows_removed() {
    let shop = Shop::open("order", RelaySettings::default()).await;
    for batch in 0..20 {
        let staged = shop.staged(batch * 5..(batch + 1) * 5).await;
        shop.relay.publish_soon(staged);
    }
    assert_eq!(shop.read(100).await, numbers(0..100));
    shop.until_empty().await;
    assert_eq!(shop.outbox.backlog(), 0);
    shop.close().await;
}

#[tokio::test]
async fn a_row_is_deleted_with_the_next_batch() {
    let shop = Shop::open(
        "next",
        RelaySettings {
            sweep: SOON * 10,
            ..RelaySettings::default()
        },
    )
    .await;
    let staged = shop.staged(0..1).await;
    shop.relay.publish_soon(staged);
    until("the first batch is sent", SOON, async || {
        shop.relay.backlog() == 0
    })
    .await;
    assert_eq!(shop.rows().await, 1);
    // The transaction is rolled back, and so is the removal of the first row.
    let mut transaction = shop.pool.begin().await.unwrap();
    let records = shop.records(1..2);
    drop(
        shop.outbox
            .stage(&mut *transaction, &records)
            .await
            .unwrap(),
    );
    transaction.rollback().await.unwrap();
    assert_eq!(shop.rows().await, 1);

    let staged = shop.staged(2..3).await;
    assert_eq!(shop.rows().await, 1);
    shop.relay.publish_soon(staged);
    assert_eq!(shop.read(2).await, ["0", "2"]);
    shop.close().await;
}

#[tokio::test]
async fn records_left_by_a_crash_are_swept() {
    let shop = Shop::open("crash", QUICK).await;
    // The transactions are committed, and their records are not handed to the relay.
    drop(shop.staged(0..3).await);
    drop(shop.staged(3..5).await);
    assert_eq!(shop.read(5).await, numbers(0..5));
    shop.until_empty().await;
    shop.close().await;
}

#[tokio::test]
async fn an_unavailable_log_loses_nothing_and_shows_in_the_backlog() {
    let shop = Shop::open("away", RelaySettings::default()).await;
    shop.unavailable.store(true, Ordering::SeqCst);
    for number in 0..10 {
        let staged = shop.staged(number..number + 1).await;
        shop.relay.publish_soon(staged);
    }
    assert_eq!(shop.outbox.backlog(), 10);
    shop.unavailable.store(false, Ordering::SeqCst);
    assert_eq!(shop.read(10).await, numbers(0..10));
    shop.until_empty().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_the_sweep_and_keep_it_complete() {
    let shop = Shop::open("share", QUICK).await;
    let end = CancellationToken::new();
    let mut others = Vec::new();
    for _ in 0..3 {
        let log = shop.bench.writer.clone();
        let (_, _, running) = Relay::new(shop.pool.clone(), log, QUICK, end.clone());
        others.push(tokio::spawn(running));
    }
    for number in 0..200 {
        drop(shop.staged(number..number + 1).await);
    }
    let mut read = shop.read(200).await;
    read.sort_by_key(|text| text.parse::<i32>().unwrap());
    assert_eq!(read, numbers(0..200));
    shop.until_empty().await;
    end.cancel();
    for other in others {
        other.await.unwrap();
    }
    shop.close().await;
}

#[tokio::test]
async fn stopping_sends_the_staged_records() {
    let shop = Shop::open("stop", RelaySettings::default()).await;
    let staged = shop.staged(0..5).await;
    shop.stop.cancel();
    shop.relay.publish_soon(staged);
    assert_eq!(shop.read(5).await, numbers(0..5));
    shop.running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_are_applied_once() {
    let url = TestEnv::shared().await.create_database("migrations").await;
    let pool = PgPool::connect(&url).await.unwrap();
    let applied = (0..4).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move { migrations::apply(&pool).await })
    });
    for result in futures_util::future::join_all(applied).await {
        result.unwrap().unwrap();
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(rows, 0);
}
