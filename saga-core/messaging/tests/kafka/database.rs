//! Tests a database, its group's offsets, and a log that backups and deletions have made inconsistent.

use crate::{Bench, SOON, next_records, numbers, take, texts};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};
use saga_messaging::{
    database::{Changed, Database, approve, keep},
    kafka::{GroupOffsets, KafkaReader, ReaderOptions},
    log::{LogError, LogReader, TopicPartition},
};
use saga_test_support::environment::{TestEnv, until};
use sqlx::PgPool;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// A service's database and its consumer group, on a topic of the test's own.
struct Shop {
    bench: Bench,
    pool: PgPool,
}

/// One process of the service.
struct Process {
    database: Arc<Database>,
    reader: KafkaReader,
    stop: CancellationToken,
    keeping: JoinHandle<Result<(), LogError>>,
}

impl Shop {
    async fn open(name: &str, partitions: i32) -> Self {
        let bench = Bench::new(name, partitions).await;
        let pool = crate::outbox::database().await;
        Self { bench, pool }
    }

    async fn start(&self) -> Process {
        let bench = &self.bench;
        let database = until("it is approved", SOON, async || {
            let approved = approve(&self.pool, &bench.config, &bench.group, &bench.topic).await;
            approved.map_err(anyhow::Error::new)
        })
        .await;
        let options = ReaderOptions {
            database: Some(Arc::clone(&database)),
            ..ReaderOptions::default()
        };
        let reader =
            KafkaReader::subscribe(&bench.config, &bench.group, &[&bench.topic], options).unwrap();
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(
            Arc::clone(&database),
            self.pool.clone(),
            bench.config.clone(),
            bench.group.clone(),
            stop.clone(),
        ));
        Process {
            database,
            reader,
            stop,
            keeping,
        }
    }

    /// Returns the database's notes on the group: ticks, and next offsets.
    async fn notes(&self) -> (i64, BTreeMap<i32, i64>) {
        let ticks = sqlx::query_scalar("SELECT ticks FROM database_identity");
        let consumed: Vec<(i32, i64)> =
            sqlx::query_as("SELECT partition, next_offset FROM consumed")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        (
            ticks.fetch_one(&self.pool).await.unwrap(),
            consumed.into_iter().collect(),
        )
    }

    /// Sets the database's notes back, as a restored backup would.
    async fn restore(&self, (ticks, consumed): &(i64, BTreeMap<i32, i64>)) {
        sqlx::query("UPDATE database_identity SET ticks = $1")
            .bind(ticks)
            .execute(&self.pool)
            .await
            .unwrap();
        for (partition, next) in consumed {
            sqlx::query("UPDATE consumed SET next_offset = $1 WHERE partition = $2")
                .bind(next)
                .bind(partition)
                .execute(&self.pool)
                .await
                .unwrap();
        }
    }

    async fn committed(&self) -> BTreeMap<i32, i64> {
        let offsets = GroupOffsets::connect(&self.bench.config, &self.bench.group).unwrap();
        until("the coordinator answers", SOON, async || {
            offsets.committed(&self.bench.topic).await
        })
        .await
    }

    /// Deletes the topic and recreates it with this number of partitions.
    async fn recreate(&self, partitions: i32) {
        let admin = admin(&self.bench);
        let topic = self.bench.topic.as_str();
        let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await;
        assert_eq!(deleted.unwrap(), [Ok(topic.to_owned())]);
        until("the topic is gone", SOON, async || {
            let metadata = admin.inner().fetch_metadata(Some(topic), SOON).unwrap();
            let error = metadata.topics()[0].error();
            let gone = RDKafkaErrorCode::UnknownTopicOrPartition;
            if error.map(RDKafkaErrorCode::from) == Some(gone) {
                Ok(())
            } else {
                Err(format!("{error:?}"))
            }
        })
        .await;
        let env = TestEnv::shared().await;
        env.create_topics(&[(topic, partitions)]).await;
    }
}

fn admin(bench: &Bench) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", &bench.config.brokers)
        .create()
        .unwrap()
}

impl Process {
    async fn handle(&mut self, count: usize) -> Vec<String> {
        let records = take(&mut self.reader, count).await;
        self.reader.done(&records).unwrap();
        texts(&records)
    }

    async fn stop(mut self) {
        self.reader.close().await;
        self.stop.cancel();
        self.keeping.await.unwrap().unwrap();
    }

    /// Returns the reason why the process has to stop.
    async fn changed(self) -> Changed {
        let ended = timeout(SOON, self.keeping).await.expect("it notices");
        let Err(LogError::Refused(changed)) = ended.unwrap() else {
            panic!("it does not stop");
        };
        *changed.downcast().expect("a change")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_from_a_backup_takes_its_group_back_to_where_it_stood_and_only_once() {
    let shop = Shop::open("backup", 1).await;
    shop.bench.publish(0..10, 1).await;
    let mut process = shop.start().await;
    process.handle(10).await;
    process.stop().await;
    let backup = shop.notes().await;
    assert_eq!(backup.1, BTreeMap::from([(0, 10)]));
    shop.bench.publish(10..20, 1).await;
    let mut process = shop.start().await;
    process.handle(10).await;
    // Offsets carry a tick only after the database has stored it.
    until("it ticks", SOON, async || shop.notes().await.0 > backup.0).await;
    shop.bench.publish(20..25, 1).await;
    process.handle(5).await;
    process.stop().await;
    assert_eq!(shop.committed().await, BTreeMap::from([(0, 25)]));

    shop.restore(&backup).await;
    let mut process = shop.start().await;
    assert_eq!(shop.committed().await, BTreeMap::from([(0, 10)]));
    assert_eq!(process.handle(15).await, numbers(10..25));
    process.stop().await;
    shop.bench.publish(25..26, 1).await;
    let mut process = shop.start().await;
    assert_eq!(process.handle(1).await, numbers(25..26));
    process.stop().await;
}

/// The commit of a batch carries the tick from before the batch, so without a later commit the loss would go unnoticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_lacks_a_single_batch_takes_its_group_back() {
    let shop = Shop::open("burst", 1).await;
    shop.bench.publish(0..10, 1).await;
    let mut process = shop.start().await;
    process.handle(10).await;
    process.stop().await;
    let backup = shop.notes().await;
    shop.bench.publish(10..20, 1).await;
    let mut process = shop.start().await;
    process.handle(10).await;
    let offsets = GroupOffsets::connect(&shop.bench.config, &shop.bench.group).unwrap();
    let marked = until("the mark has the newest tick", SOON, async || {
        let marked = offsets.marked(&shop.bench.topic).await.unwrap();
        let committed = &marked[&0];
        let tick = committed.mark.as_ref().unwrap().tick;
        if (committed.offset, tick) == (Some(20), shop.notes().await.0) && tick > backup.0 {
            Ok(())
        } else {
            Err(format!("{committed:?}"))
        }
    });
    // A consumer polls its reader all the time.
    tokio::select! {
        () = marked => {}
        polled = process.reader.poll(1) => panic!("{polled:?}"),
    }
    process.stop().await;
    shop.restore(&backup).await;
    let mut process = shop.start().await;
    assert_eq!(process.handle(10).await, numbers(10..20));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_process_stops_when_its_database_is_restored() {
    let shop = Shop::open("went-back", 1).await;
    let backup = shop.notes().await;
    shop.bench.publish(0..10, 1).await;
    let mut process = shop.start().await;
    process.handle(10).await;
    until("it ticks", SOON, async || shop.notes().await.0 > backup.0).await;
    shop.restore(&backup).await;
    let changed = process.changed().await;
    assert!(matches!(changed, Changed::Database { .. }), "{changed}");
    assert_eq!(shop.notes().await.0, backup.0, "it wrote nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_process_stops_when_its_topic_is_recreated_and_the_next_one_reads_from_the_beginning()
 {
    let shop = Shop::open("anew", 2).await;
    shop.bench.publish(0..6, 2).await;
    let mut process = shop.start().await;
    process.handle(6).await;
    until("it ticks", SOON, async || {
        shop.notes().await.1 == BTreeMap::from([(0, 3), (1, 3)])
    })
    .await;
    shop.recreate(2).await;
    // The new topic gets more records than the former one had: all offsets exist again, with other contents.
    shop.bench.publish(100..120, 2).await;
    let changed = process.changed().await;
    assert!(matches!(changed, Changed::Topic { .. }), "{changed}");

    let mut process = shop.start().await;
    let place = TopicPartition {
        topic: shop.bench.topic.clone(),
        partition: 1,
    };
    let mut read = process.handle(20).await;
    read.sort();
    assert_eq!(read, numbers(100..120));
    assert!(process.database.take_recreated(&place));
    assert!(!process.database.take_recreated(&place));
    process.stop().await;
    shop.bench.publish(120..122, 2).await;
    let mut process = shop.start().await;
    let mut read = process.handle(2).await;
    read.sort();
    assert_eq!(read, numbers(120..122));
    assert!(!process.database.take_recreated(&place));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_offsets_continues_at_the_offsets_in_its_database() {
    let shop = Shop::open("forgotten", 1).await;
    shop.bench.publish(0..10, 1).await;
    let mut process = shop.start().await;
    process.handle(7).await;
    process.stop().await;
    let admin = admin(&shop.bench);
    let group = shop.bench.group.as_str();
    until("the group is deleted", SOON, async || {
        let deleted = admin.delete_groups(&[group], &AdminOptions::new()).await;
        let deleted = deleted.unwrap().remove(0);
        deleted.map_err(|(_, code)| code)
    })
    .await;
    let mut process = shop.start().await;
    let rest = next_records(&mut process.reader, 10).await;
    assert_eq!(texts(&rest), numbers(7..10));
    process.stop().await;
}
