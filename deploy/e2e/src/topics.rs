//! Topics, read and written by hand as a user with Kafka tools would.

use anyhow::Result;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaWriter, Scan},
    log::LogWriter,
};
use tokio::{runtime::Handle, task::block_in_place};

/// Records of one look.
const CHUNK: usize = 1_000;

/// Everything that stands in a topic now, whatever it is.
pub fn read_all(brokers: &str, topic: &str) -> Result<Vec<IncomingRecord>> {
    block_in_place(|| Handle::current().block_on(scan(brokers, topic)))
}

async fn scan(brokers: &str, topic: &str) -> Result<Vec<IncomingRecord>> {
    let scan = Scan::connect(&KafkaConfig::plaintext(brokers))?;
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

/// The records of one saga in a topic.
pub fn of_saga(brokers: &str, topic: &str, saga: uuid::Uuid) -> Result<Vec<IncomingRecord>> {
    let key = saga.to_string().into_bytes();
    Ok(read_all(brokers, topic)?
        .into_iter()
        .filter(|record| record.key.as_deref() == Some(&key))
        .collect())
}

/// Produces records again as they were: a duplicate delivery.
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
