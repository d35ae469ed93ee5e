//! Tests that a blocked consumer reports the reason.

use crate::{Bench, SOON, join, measured, next_records, observe, texts};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use saga_messaging::{
    kafka::{KafkaReader, ReaderOptions},
    log::LogReader,
    progress::Progress,
};
use saga_service::health::{DependencyStatus, HealthRegistry};
use saga_test_support::logs;
use std::time::Duration;
use tokio::time::timeout;

const LOOK: Duration = Duration::from_millis(100);
/// Longest wait: far longer than a broker takes to create its transaction log for the first time, even on a machine
/// that compiles meanwhile.
const ASKING: Duration = Duration::from_mins(1);

/// Returns another system's producer, whose transactions may last for ten minutes.
fn foreign(bench: &Bench, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bench.config.brokers)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    // A former producer of the same id is fenced off, and its transaction is aborted.
    producer.init_transactions(ASKING).unwrap();
    producer
}

/// Returns the check of the consumer's work, as `/health` answers it.
async fn health(progress: &Progress) -> (DependencyStatus, String) {
    let mut health = HealthRegistry::default();
    let watched = progress.clone();
    health.watch("the topic", move || watched.look());
    let found = health.examine().await.remove(0);
    (found.status, found.detail.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_transaction_left_open_is_reported_with_its_offset() {
    observe();
    let bench = Bench::new("foreign", 1).await;
    let blocked = || measured("saga_consumer_blocked_records", &[&bench.topic]);
    let progress = Progress::default();
    let options = ReaderOptions {
        progress: progress.clone(),
        ..ReaderOptions::default()
    };
    let mut reader =
        KafkaReader::subscribe(&bench.config, &bench.group, &[&bench.topic], options).unwrap();
    join(&mut reader).await;
    bench.publish(0..2, 1).await;
    assert_eq!(texts(&next_records(&mut reader, 2).await).len(), 2);
    assert_eq!(progress.trouble(), None);

    let id = format!("{}-foreign", bench.topic);
    let dying = foreign(&bench, &id);
    dying.begin_transaction().unwrap();
    let record = BaseRecord::<(), str>::to(&bench.topic).payload("half");
    dying.send(record).unwrap();
    dying.flush(ASKING).unwrap();
    drop(dying);
    bench.publish(2..4, 1).await;

    let telling = async {
        loop {
            // No record arrives, but the client must be polled.
            let read = timeout(LOOK, reader.poll(10)).await;
            assert!(read.is_err(), "{read:?}");
            if let Some(trouble) = progress.trouble() {
                return trouble;
            }
        }
    };
    let told = timeout(SOON, telling).await.expect("it is told");
    for part in [
        &format!("{}/0", bench.topic),
        "transaction",
        "offset 2",
        "3 records",
    ] {
        assert!(told.contains(part), "{told}");
    }

    // The value of the alert, the answer of /health and the line in the log have the same trouble.
    assert_eq!(blocked(), Some(3.0));
    assert_eq!(
        health(&progress).await,
        (DependencyStatus::Down, told.clone())
    );
    assert!(logs::line_with(&["WARN", &told]).is_some());

    drop(foreign(&bench, &id));
    let read = texts(&next_records(&mut reader, 10).await);
    assert_eq!(read.first().map(String::as_str), Some("2"), "{read:?}");
    let healing = async {
        while progress.trouble().is_some() {
            timeout(LOOK, reader.poll(10)).await.ok();
        }
    };
    timeout(SOON, healing).await.expect("it is well again");
    assert_eq!(blocked(), Some(0.0));
    assert_eq!(health(&progress).await.0, DependencyStatus::Up);
    reader.close().await;
}
