//! Reads and writes topics directly, as a user with Kafka tools would.

use anyhow::Result;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaWriter, TopicReader},
    log::LogWriter,
};
use tokio::{runtime::Handle, task::block_in_place};

/// The number of records that one read returns at most.
const CHUNK: usize = 1_000;

/// Returns all records that are in a topic now, whether they are valid or not.
pub fn read_all(brokers: &str, topic: &str) -> Result<Vec<IncomingRecord>> {
    block_in_place(|| Handle::current().block_on(scan(brokers, topic)))
}

async fn scan(brokers: &str, topic: &str) -> Result<Vec<IncomingRecord>> {
    let scan = TopicReader::connect(&KafkaConfig::plaintext(brokers))?;
    let mut records = Vec::new();
    for (partition, window) in scan.windows(topic).await? {
        let mut next = window.start;
        while next < window.end {
            let looked = scan.look(topic, partition, next, CHUNK).await?;
            anyhow::ensure!(looked.next > next, "{topic} ended early, at {next}");
            next = looked.next;
            records.extend(looked.records);
        }
    }
    Ok(records)
}

/// Returns the records in a topic whose key is this saga's id.
pub fn of_saga(brokers: &str, topic: &str, saga: uuid::Uuid) -> Result<Vec<IncomingRecord>> {
    let key = saga.to_string().into_bytes();
    Ok(read_all(brokers, topic)?
        .into_iter()
        .filter(|record| record.key.as_deref() == Some(&key))
        .collect())
}

/// Produces the records again, unchanged and to the same partitions, as a duplicate delivery would.
pub async fn replay(brokers: &str, records: &[IncomingRecord]) -> Result<()> {
    let again: Vec<OutgoingRecord> = records
        .iter()
        .map(|record| OutgoingRecord {
            topic: record.topic.clone(),
            partition: Some(record.partition),
            key: record.key.clone().unwrap_or_default(),
            headers: record.headers.clone(),
            payload: record.payload.clone().unwrap_or_default(),
        })
        .collect();
    publish(brokers, &again).await
}

pub async fn publish(brokers: &str, records: &[OutgoingRecord]) -> Result<()> {
    let writer = KafkaWriter::connect(&KafkaConfig::plaintext(brokers))?;
    writer.publish(records).await?;
    Ok(())
}
