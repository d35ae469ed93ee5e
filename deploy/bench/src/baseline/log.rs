//! K: how many sagas a second Kafka alone can carry. The same records are produced and consumed, with as many
//! partitions.
//!
//! The records are real ones that the scenario has just written, and each topic has as many a saga as in the scenario.
//! They are produced as the services produce theirs: idempotent, acknowledged by all replicas, in batches as large as
//! the client likes. They are consumed once, at the same time.

use crate::{kafka, system::BASELINE_TOPICS};
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedHeaders, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use saga_contracts::topic;
use saga_messaging::kafka::{KafkaConfig, TopicSpec, ensure_topics};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How many real records of each topic are read, to be sent again and again.
const SAMPLE: i64 = 2_000;
/// The number of sagas whose records are sent to a topic before those of the next topic, so that all topics grow
/// together.
const CHUNK: u64 = 100;
/// All records must have been consumed within this time after the last one was sent.
const CONSUME_LIMIT: Duration = Duration::from_secs(30);

/// A record that was read from a topic.
struct Record {
    key: Vec<u8>,
    payload: Vec<u8>,
    headers: OwnedHeaders,
}

/// The records of a saga in one topic.
pub struct Part {
    topic: String,
    partitions: i32,
    pub records_a_saga: f64,
    sample: Vec<Record>,
}

/// Reads a sample of the records that `sagas` sagas have written since `before`. Blocks.
pub fn sample(
    brokers: &str,
    scenario: &str,
    before: &BTreeMap<&'static str, i64>,
    sagas: u64,
) -> Result<Vec<Part>> {
    ensure!(sagas > 0, "no saga has written anything");
    let client = kafka::consumer(brokers)?;
    let after = kafka::ends(&client)?;
    let mut parts = Vec::new();
    for topic in topic::ALL {
        let written = after[topic] - before.get(topic).copied().unwrap_or(0);
        let windows = kafka::windows(&client, topic)?;
        parts.push(Part {
            topic: format!("{BASELINE_TOPICS}{scenario}.{topic}"),
            partitions: i32::try_from(windows.len())?,
            records_a_saga: written as f64 / sagas as f64,
            sample: read(&client, topic, &windows)?,
        });
    }
    Ok(parts)
}

impl Part {
    /// Returns how many records of this topic the first `sagas` sagas have.
    fn records_of(&self, sagas: u64) -> u64 {
        records_of(self.records_a_saga, sagas)
    }
}

fn records_of(a_saga: f64, sagas: u64) -> u64 {
    (a_saga * sagas as f64).round() as u64
}

/// Reads the last records of each partition.
fn read(
    client: &BaseConsumer,
    topic: &str,
    windows: &BTreeMap<i32, (i64, i64)>,
) -> Result<Vec<Record>> {
    let mut from = TopicPartitionList::new();
    let mut wanted = 0;
    for (partition, (start, end)) in windows {
        let first = (end - SAMPLE / windows.len() as i64).max(*start);
        wanted += end - first;
        from.add_partition_offset(topic, *partition, Offset::Offset(first))?;
    }
    client.assign(&from)?;
    let mut records = Vec::new();
    let began = Instant::now();
    while (records.len() as i64) < wanted {
        ensure!(began.elapsed() < CONSUME_LIMIT, "{topic} could not be read");
        let Some(message) = client.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        records.push(Record {
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: message
                .headers()
                .map(BorrowedHeaders::detach)
                .unwrap_or_default(),
        });
    }
    client.unassign()?;
    Ok(records)
}

/// Returns how many sagas a second Kafka carries.
pub async fn measure(brokers: &str, parts: Vec<Part>, time: Duration) -> Result<f64> {
    let specs: Vec<TopicSpec> = parts
        .iter()
        .map(|part| TopicSpec::new(&part.topic, part.partitions))
        .collect();
    ensure_topics(&KafkaConfig::plaintext(brokers), &specs).await?;
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || produce_and_consume(&brokers, &parts, time))
        .await
        .context("the baseline of Kafka")?
}

fn produce_and_consume(brokers: &str, parts: &[Part], time: Duration) -> Result<f64> {
    let consumer = kafka::consumer(brokers)?;
    let mut beginnings = TopicPartitionList::new();
    for part in parts {
        for partition in 0..part.partitions {
            beginnings.add_partition_offset(&part.topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&beginnings)?;
    let began = Instant::now();
    let expected = AtomicU64::new(u64::MAX);
    let (sagas, elapsed) = thread::scope(|scope| {
        let consuming = scope.spawn(|| consume(&consumer, &expected));
        let sagas = produce(brokers, parts, began + time)?;
        let records = parts.iter().map(|part| part.records_of(sagas)).sum();
        expected.store(records, Ordering::Relaxed);
        let ended = consuming
            .join()
            .map_err(|_| anyhow!("the baseline's consumer panicked"))??;
        anyhow::Ok((sagas, ended.saturating_duration_since(began)))
    })?;
    Ok(sagas as f64 / elapsed.as_secs_f64())
}

/// Sends the records of as many sagas as fit into the time, and returns that number when all records are acknowledged.
fn produce(brokers: &str, parts: &[Part], until: Instant) -> Result<u64> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .create()
        .context("a producer of the baseline")?;
    let mut sagas = 0;
    while Instant::now() < until {
        for part in parts.iter().filter(|part| !part.sample.is_empty()) {
            for number in part.records_of(sagas)..part.records_of(sagas + CHUNK) {
                send(&producer, part, number)?;
            }
        }
        sagas += CHUNK;
    }
    producer
        .flush(CONSUME_LIMIT)
        .context("the baseline's records are not acknowledged")?;
    Ok(sagas)
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    part: &Part,
    number: u64,
) -> Result<()> {
    let record = &part.sample[(number % part.sample.len() as u64) as usize];
    let partition = (number % u64::from(part.partitions.unsigned_abs())) as i32;
    let mut next = BaseRecord::to(&part.topic)
        .partition(partition)
        .key(&record.key)
        .payload(&record.payload)
        .headers(record.headers.clone());
    loop {
        match producer.send(next) {
            Ok(()) => return Ok(()),
            // The client's own queue is full, so sending waits for the broker.
            Err((error, back))
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
            {
                thread::sleep(Duration::from_millis(1));
                next = back;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Consumes until the expected number of records has arrived, and returns when the last one did. The number is known
/// once all records are sent.
fn consume(consumer: &BaseConsumer, expected: &AtomicU64) -> Result<Instant> {
    let mut seen: u64 = 0;
    let mut last = Instant::now();
    while seen < expected.load(Ordering::Relaxed) {
        if let Some(message) = consumer.poll(Duration::from_millis(10)) {
            message?;
            seen += 1;
            last = Instant::now();
        }
        ensure!(
            last.elapsed() < CONSUME_LIMIT,
            "{seen} of {expected:?} records of the baseline came back"
        );
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractional_records_per_saga_add_up_to_the_exact_total() {
        let sum: u64 = (0..10)
            .map(|chunk| records_of(2.345, 100 * (chunk + 1)) - records_of(2.345, 100 * chunk))
            .sum();
        assert_eq!(sum, 2_345);
        assert_eq!(records_of(0.0, 1_000), 0);
    }
}
