//! Publishes records that no correct service sends: bad records, and duplicates of old records.

use anyhow::{Context, Result, ensure};
use saga_contracts::topic;
use saga_core::message::{Headers, OutgoingRecord, header};
use saga_harness::topics;
use saga_messaging::kafka::{KafkaConfig, TopicReader};

/// The maximum number of records in one replay.
const RANGE_MAX: usize = 150;
/// The number of records that one read of the events returns at most.
const CHUNK: usize = 5_000;

/// Publishes one bad record to every topic.
pub async fn poison(brokers: &str, form: u64) -> Result<()> {
    let records: Vec<OutgoingRecord> = topic::ALL
        .into_iter()
        .zip(0..)
        .map(|(topic, index)| bad_record(topic, form.wrapping_add(index)))
        .collect();
    topics::publish(brokers, &records).await
}

/// Returns a bad record. `form` selects, in turn: no JSON, no headers, very deep nesting, a NUL character, no value,
/// contradicting headers, an unknown saga.
fn bad_record(topic: &str, form: u64) -> OutgoingRecord {
    let saga = uuid::Uuid::from_u128(u128::from(form) << 64 | 0x8000);
    let text = |value: &str| value.as_bytes().to_vec();
    let mut record = OutgoingRecord {
        topic: topic.to_owned(),
        partition: None,
        key: text(&saga.to_string()),
        headers: [
            (header::CE_TYPE, "order.created"),
            (header::SAGA_ID, &saga.to_string()),
            (header::DEFINITION, "place-order"),
            (header::STEP, "poison"),
            (header::DIRECTION, "forward"),
            (header::ATTEMPT, "1"),
            (header::REPLY_TOPIC, topic::SAGA_INPUTS),
            (header::REPLY_PARTITION, "0"),
        ]
        .into(),
        payload: text("{}"),
    };
    match form % 7 {
        0 => record.payload = b"{ this is not JSON \xff".to_vec(),
        1 => record.headers = Headers::default(),
        2 => record.payload = "[".repeat(50_000).into_bytes(),
        3 => record.payload = text(r#"{"orderId": "\u0000"}"#),
        4 => record.payload.clear(),
        5 => record.headers.push(header::ATTEMPT, "minus one"),
        _ => {}
    }
    record
}

/// Publishes a range of one partition again, unchanged, at the partition's end.
pub async fn replay(brokers: &str, topic: usize, place: u64) -> Result<()> {
    let topic = topic::ALL[topic % topic::ALL.len()];
    let scan = TopicReader::connect(&KafkaConfig::plaintext(brokers))?;
    let windows: Vec<_> = scan.windows(topic).await?.into_iter().collect();
    let index = (place % windows.len().max(1) as u64) as usize;
    let (partition, window) = windows.get(index).context("no such topic")?;
    if window.start >= window.end {
        return Ok(());
    }
    let length = (window.end - window.start).cast_unsigned();
    let first = window.start + ((place >> 8) % length).cast_signed();
    let looked = scan.look(topic, *partition, first, RANGE_MAX).await?;
    topics::replay(brokers, &looked.records).await
}

/// Returns the partition and the timestamp, as its sender set it, of every event of every saga.
pub async fn event_times(brokers: &str) -> Result<Vec<(i32, i64)>> {
    let scan = TopicReader::connect(&KafkaConfig::plaintext(brokers))?;
    let mut times = Vec::new();
    for (partition, window) in scan.windows(topic::SAGA_EVENTS).await? {
        let mut next = window.start;
        while next < window.end {
            let looked = scan
                .look(topic::SAGA_EVENTS, partition, next, CHUNK)
                .await?;
            ensure!(looked.next > next, "the events ended early, at {next}");
            next = looked.next;
            let records = looked.records.iter();
            times.extend(records.map(|record| (partition, record.timestamp_ms)));
        }
    }
    Ok(times)
}
