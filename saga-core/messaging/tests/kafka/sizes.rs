//! Tests a topic that accepts each record, but not all records in one batch.

use crate::{Bench, numbers, take, texts};
use saga_core::message::OutgoingRecord;
use saga_messaging::{
    kafka::{KafkaConfig, TopicSpec, ensure_topics},
    log::{LogError, LogWriter},
};
use saga_test_support::environment::TestEnv;
use std::collections::BTreeSet;

const LIMIT_BYTES: usize = 20_000;

/// Creates two topics with a small limit. Returns a bench on the first, and the name of the second.
async fn bench() -> (Bench, String) {
    let env = TestEnv::shared().await;
    let bench = Bench::new("roomy", 1).await;
    let small = |name: &str| {
        let mut spec = TopicSpec::new(env.unique(name), 1);
        spec.properties
            .insert("max.message.bytes".to_owned(), LIMIT_BYTES.to_string());
        spec
    };
    let (first, second) = (small("small"), small("smaller"));
    let config = KafkaConfig::plaintext(env.brokers());
    ensure_topics(&config, &[first.clone(), second.clone()])
        .await
        .unwrap();
    let bench = Bench {
        topic: first.name,
        ..bench
    };
    (bench, second.name)
}

/// Returns a record of a kilobyte whose text begins with a number.
fn kilobyte(bench: &Bench, number: i32) -> OutgoingRecord {
    OutgoingRecord {
        payload: format!("{number:<1000}").into_bytes(),
        ..bench.record(Some(0), &number.to_string())
    }
}

#[tokio::test]
async fn records_that_fit_are_sent_though_their_batch_does_not() {
    let (bench, other) = bench().await;
    let mut records: Vec<_> = (0..100).map(|number| kilobyte(&bench, number)).collect();
    let elsewhere = records.iter().cloned().map(|record| OutgoingRecord {
        topic: other.clone(),
        ..record
    });
    let elsewhere: Vec<_> = elsewhere.collect();
    records.extend(elsewhere);
    // Two batches are published at once: neither must mistake the other's refusal for its own.
    let (first, second) = tokio::join!(
        bench.writer.publish(&records),
        bench.writer.publish(&records)
    );
    for delivered in [first.unwrap(), second.unwrap()] {
        assert!(delivered.iter().all(|at| at.offset >= 0));
        let places: BTreeSet<_> = delivered[..100].iter().map(|at| at.offset).collect();
        assert_eq!(places.len(), 100, "{places:?}");
    }
    // Later batches are accepted, too.
    bench.writer.publish(&records).await.unwrap();
    let mut reader = bench.reader();
    let read = texts(&take(&mut reader, 300).await);
    let read: BTreeSet<String> = read.iter().map(|text| text.trim().to_owned()).collect();
    assert_eq!(read, numbers(0..100).into_iter().collect());
}

#[tokio::test]
async fn a_record_that_does_not_fit_is_refused_alone_and_the_setting_named() {
    let (bench, _) = bench().await;
    let mut records: Vec<_> = (0..50).map(|number| kilobyte(&bench, number)).collect();
    records[7].payload = vec![b'x'; 2 * LIMIT_BYTES];
    let mut delivered = vec![None; records.len()];
    let sent = bench.writer.publish_rest(&records, &mut delivered).await;
    let LogError::TooLarge(why) = sent.unwrap_err() else {
        panic!("not refused as too large");
    };
    assert!(why.to_string().contains("max.message.bytes"), "{why}");
    let unsent: Vec<usize> = (0..50).filter(|n| delivered[*n].is_none()).collect();
    assert_eq!(unsent, [7]);
    // Another attempt sends only this one.
    records[7] = kilobyte(&bench, 7);
    bench
        .writer
        .publish_rest(&records, &mut delivered)
        .await
        .unwrap();
    let offsets: BTreeSet<i64> = delivered.iter().flatten().map(|at| at.offset).collect();
    assert_eq!(offsets, (0..50).collect());
    let mut reader = bench.reader();
    let read = texts(&take(&mut reader, 50).await);
    assert_eq!(read.last().map(|text| text.trim()), Some("7"));
}
