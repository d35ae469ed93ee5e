//! K: how many sagas a second Kafka alone can carry: the same records, produced and consumed, with as many partitions.
//!
//! The records are real ones that the scenario has just written, as many of each topic as a saga has there. They are
//! produced as the services produce theirs, idempotent and acknowledged by all, in batches as large as the client likes, and
//! consumed at the same time, once.

use crate::kafka;
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
    thread,
    time::{Duration, Instant},
};

/// Of the floor's own topics, which are new for each scenario.
pub const TOPIC_PREFIX: &str = "saga-bench.floor.";
/// Real records of each topic that are sent again and again.
const SAMPLE: i64 = 2_000;
/// Sagas whose records are sent before the next topic's, so that all topics grow together.
const CHUNK: u64 = 100;
/// After the last record was sent, all must have been consumed.
const CONSUME_LIMIT: Duration = Duration::from_secs(30);

/// A record as it stands in a topic.
struct Record {
    key: Vec<u8>,
    payload: Vec<u8>,
    headers: OwnedHeaders,
}

/// One topic's part of a saga.
pub struct Part {
    topic: String,
    partitions: i32,
    records_a_saga: f64,
    sample: Vec<Record>,
}

/// What so many sagas have written since `before`. Blocks.
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
            topic: format!("{TOPIC_PREFIX}{scenario}.{topic}"),
            partitions: i32::try_from(windows.len())?,
            records_a_saga: written as f64 / sagas as f64,
            sample: read(&client, topic, &windows)?,
        });
    }
    Ok(parts)
}

impl Part {
    pub fn records_a_saga(&self) -> f64 {
        self.records_a_saga
    }

    /// How many records of it the first `sagas` sagas have.
    fn records_of(&self, sagas: u64) -> u64 {
        records_of(self.records_a_saga, sagas)
    }
}

fn records_of(a_saga: f64, sagas: u64) -> u64 {
    (a_saga * sagas as f64).round() as u64
}

/// The last records of each partition.
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

/// Sagas a second.
pub async fn measure(brokers: &str, parts: Vec<Part>, time: Duration) -> Result<f64> {
    let specs: Vec<TopicSpec> = parts
        .iter()
        .map(|part| TopicSpec::new(&part.topic, part.partitions))
        .collect();
    ensure_topics(&KafkaConfig::plaintext(brokers), &specs).await?;
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || produce_and_consume(&brokers, &parts, time))
        .await
        .context("the floor of Kafka")?
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
    let (sagas, elapsed) = thread::scope(|scope| {
        let (announce, announced) = std::sync::mpsc::sync_channel(1);
        let consuming = scope.spawn(move || consume(&consumer, &announced));
        let sagas = produce(brokers, parts, began + time)?;
        let records: u64 = parts.iter().map(|part| part.records_of(sagas)).sum();
        // The consumer is there until it has been told.
        announce
            .send(records)
            .context("the floor's consumer has gone")?;
        let ended = consuming
            .join()
            .map_err(|_| anyhow!("the floor's consumer panicked"))??;
        anyhow::Ok((sagas, ended.saturating_duration_since(began)))
    })?;
    Ok(sagas as f64 / elapsed.as_secs_f64())
}

/// As many sagas' records as fit into the time; returns when all are acknowledged.
fn produce(brokers: &str, parts: &[Part], until: Instant) -> Result<u64> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .create()
        .context("a producer of the floor")?;
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
        .context("the floor's records are not acknowledged")?;
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
            // The client's own queue is full: the broker sets the pace.
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

/// When the last record came, of as many as are announced once all are sent.
fn consume(consumer: &BaseConsumer, announced: &std::sync::mpsc::Receiver<u64>) -> Result<Instant> {
    let mut expected = None;
    let mut seen: u64 = 0;
    let mut last = Instant::now();
    loop {
        if let Some(message) = consumer.poll(Duration::from_millis(10)) {
            message?;
            seen += 1;
            last = Instant::now();
        }
        if expected.is_none() {
            expected = announced.try_recv().ok();
        }
        if expected.is_some_and(|expected| seen >= expected) {
            return Ok(last);
        }
        ensure!(
            last.elapsed() < CONSUME_LIMIT,
            "{seen} of {expected:?} records of the floor came back"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_record_a_saga_comes_to_the_right_sum() {
        let sum: u64 = (0..10)
            .map(|chunk| records_of(2.345, 100 * (chunk + 1)) - records_of(2.345, 100 * chunk))
            .sum();
        assert_eq!(sum, 2_345);
        assert_eq!(records_of(0.0, 1_000), 0);
    }
}
