//! Tests that records are read as they were written.

use crate::{Bench, SOON, next_records, numbers, take, text, texts};
use futures_util::StreamExt;
use saga_core::message::{Headers, OutgoingRecord};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaWriter, Tail, home_partition},
    log::{LogError, LogReader, LogWriter},
};
use tokio::time::timeout;

#[tokio::test]
async fn records_are_read_as_they_were_written() {
    let bench = Bench::new("round_trip", 4).await;
    let full = OutgoingRecord {
        topic: bench.topic.clone(),
        partition: Some(2),
        key: b"the key".to_vec(),
        headers: [("ce_id", &b"a"[..]), ("twice", &[0, 0xff]), ("twice", &[])].into(),
        payload: b"{\"a\":1}".to_vec(),
    };
    let tombstone = OutgoingRecord {
        key: Vec::new(),
        headers: Headers::default(),
        payload: Vec::new(),
        ..full.clone()
    };
    let delivered = bench
        .writer
        .publish(&[full.clone(), tombstone])
        .await
        .unwrap();
    let places: Vec<_> = delivered
        .iter()
        .map(|at| (at.partition, at.offset))
        .collect();
    assert_eq!(places, [(2, 0), (2, 1)]);

    let mut reader = bench.reader();
    let records = take(&mut reader, 2).await;
    assert_eq!((records[0].partition, records[0].offset), (2, 0));
    assert_eq!(records[0].key.as_ref(), Some(&full.key));
    assert_eq!(records[0].headers, full.headers);
    assert_eq!(records[0].payload.as_ref(), Some(&full.payload));
    assert!(records[0].timestamp_ms > 1_700_000_000_000);
    assert_eq!((&records[1].key, &records[1].payload), (&None, &None));
    reader.close().await;
}

#[tokio::test]
async fn keys_choose_their_home_partition() {
    let bench = Bench::new("keys", 4).await;
    let count = bench.writer.partition_count(&bench.topic).await.unwrap();
    assert_eq!(count, 4);
    let records: Vec<_> = (0..50)
        .map(|number| bench.record(None, &format!("key {number}")))
        .collect();
    let delivered = bench.writer.publish(&records).await.unwrap();
    for (number, at) in delivered.iter().enumerate() {
        assert_eq!(
            at.partition,
            home_partition(&format!("key {number}"), count)
        );
    }
}

#[tokio::test]
async fn a_partition_that_does_not_exist_falls_back_to_the_key() {
    let bench = Bench::new("stray", 2).await;
    let record = bench.record(Some(7), "somewhere");
    let delivered = bench.writer.publish(&[record]).await.unwrap();
    assert_eq!(delivered[0].partition, home_partition("somewhere", 2));
}

#[tokio::test]
async fn a_poll_returns_arrived_records_up_to_its_limit() {
    let bench = Bench::new("drain", 1).await;
    bench.publish(0..1_000, 1).await;
    let mut reader = bench.reader();
    let mut polls = 0;
    let mut read = Vec::new();
    while read.len() < 1_000 {
        let records = next_records(&mut reader, 300).await;
        assert!(records.len() <= 300);
        polls += 1;
        read.extend(texts(&records));
    }
    assert_eq!(read, numbers(0..1_000));
    assert!(polls < 20, "{polls} polls for 1000 records");
    reader.close().await;
}

#[tokio::test]
async fn every_codec_is_read() {
    let bench = Bench::new("codecs", 1).await;
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let mut config: KafkaConfig = bench.config.clone();
        config
            .extra
            .insert("compression.type".to_owned(), codec.to_owned());
        let writer = KafkaWriter::connect(&config).unwrap();
        let record = bench.record(Some(0), &codec.repeat(200));
        writer.publish(&[record]).await.unwrap();
        writer.flush().await.unwrap();
    }
    let mut reader = bench.reader();
    let records = take(&mut reader, 4).await;
    let expected = ["gzip", "snappy", "lz4", "zstd"].map(|codec| codec.repeat(200));
    assert_eq!(texts(&records), expected);
    reader.close().await;
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused_and_named() {
    let bench = Bench::new("large", 1).await;
    // The first size exceeds the topic's limit, the second the client's.
    for size in [1_500_000, 3_000_000] {
        let mut record = bench.record(None, "large");
        record.payload = vec![b'x'; size];
        let refused = bench.writer.publish(&[record]).await.unwrap_err();
        let LogError::TooLarge(why) = refused else {
            panic!("{refused:?}");
        };
        let why = why.to_string();
        assert!(
            why.contains(&size.to_string()) && why.contains("message.max.bytes"),
            "{why}"
        );
    }
    bench.publish(0..1, 1).await;
}

#[tokio::test]
async fn a_tail_reads_records_written_after_it_was_opened() {
    let bench = Bench::new("tail", 3).await;
    bench.publish(0..10, 3).await;
    let mut tail = Tail::open(&bench.config, &bench.topic).await.unwrap();
    bench.publish(10..16, 3).await;
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let record = timeout(SOON, tail.next()).await.unwrap().unwrap();
        seen.push(text(&record));
    }
    seen.sort();
    assert_eq!(seen, numbers(10..16));
}
