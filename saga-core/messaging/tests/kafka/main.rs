//! Tests the Kafka log and the outbox against real servers.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what fails is said where it fails"
)]

mod claim;
mod clocks;
mod consumer;
mod contract;
mod database;
mod group;
mod outage;
mod outbox;
mod silence;
mod sizes;
mod standstill;
mod throttle;
mod topics;
mod wire;

use saga_core::message::{Headers, IncomingRecord, OutgoingRecord};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions},
    log::{LogReader, LogWriter, PollResult},
};
use saga_service::telemetry::{self, LogConfig, LogFormat};
use saga_test_support::{environment::TestEnv, logs};
use std::{ops::Range, time::Duration};
use tokio::time::timeout;

/// Longest wait: far longer than anything here takes, so that a test fails only if the event never happens.
const SOON: Duration = Duration::from_secs(30);

/// Captures this process's log, and records its metrics.
fn observe() {
    logs::capture("warn");
    telemetry::init(&LogConfig {
        format: LogFormat::Human,
        filter: "warn".to_owned(),
    })
    .unwrap();
}

/// Returns the value of a metric's series that has all `labels`.
fn measured(metric: &str, labels: &[&str]) -> Option<f64> {
    let text = telemetry::render();
    let start = format!("{metric}{{");
    let line = text
        .lines()
        .find(|line| line.starts_with(&start) && labels.iter().all(|label| line.contains(label)))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A topic for one test.
struct Bench {
    config: KafkaConfig,
    topic: String,
    group: String,
    writer: KafkaWriter,
}

impl Bench {
    async fn new(name: &str, partitions: i32) -> Self {
        Self::on(TestEnv::shared().await, name, partitions).await
    }

    async fn on(env: &TestEnv, name: &str, partitions: i32) -> Self {
        let config = KafkaConfig::plaintext(env.brokers());
        let topic = env.unique(name);
        env.create_topics(&[(&topic, partitions)]).await;
        Self {
            writer: KafkaWriter::connect(&config).unwrap(),
            group: env.unique("group"),
            config,
            topic,
        }
    }

    fn reader(&self) -> KafkaReader {
        KafkaReader::subscribe(
            &self.config,
            &self.group,
            &[&self.topic],
            ReaderOptions::default(),
        )
        .unwrap()
    }

    fn record(&self, partition: Option<i32>, text: &str) -> OutgoingRecord {
        OutgoingRecord {
            topic: self.topic.clone(),
            partition,
            key: text.as_bytes().to_vec(),
            headers: Headers::default(),
            payload: text.as_bytes().to_vec(),
        }
    }

    /// Publishes records whose texts are the numbers, spread over `partitions`.
    async fn publish(&self, numbers: Range<i32>, partitions: i32) {
        let records: Vec<_> = numbers
            .map(|number| self.record(Some(number % partitions), &number.to_string()))
            .collect();
        self.writer.publish(&records).await.unwrap();
    }
}

fn text(record: &IncomingRecord) -> String {
    String::from_utf8(record.payload.clone().unwrap_or_default()).unwrap()
}

fn texts(records: &[IncomingRecord]) -> Vec<String> {
    records.iter().map(text).collect()
}

fn numbers(range: Range<i32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Returns the next records, and skips rebalances.
async fn next_records(reader: &mut KafkaReader, limit: usize) -> Vec<IncomingRecord> {
    loop {
        match timeout(SOON, reader.poll(limit)).await.unwrap().unwrap() {
            PollResult::Records(records) => return records,
            PollResult::Assigned(_) | PollResult::Revoked(_) => {}
        }
    }
}

/// Polls until there are `count` records, without marking them as done.
async fn take(reader: &mut KafkaReader, count: usize) -> Vec<IncomingRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(next_records(reader, count - records.len()).await);
    }
    records
}

/// Polls until the first assignment.
async fn join(reader: &mut KafkaReader) {
    match timeout(SOON, reader.poll(1)).await.unwrap().unwrap() {
        PollResult::Assigned(_) => {}
        other @ (PollResult::Records(_) | PollResult::Revoked(_)) => panic!("{other:?}"),
    }
}
