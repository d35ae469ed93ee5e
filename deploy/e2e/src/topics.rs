//! Topics, read and written by hand as a user with Kafka tools would.

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaWriter},
    log::LogWriter,
};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that stands in a topic now.
pub fn read_all(brokers: &str, topic: &str) -> Result<Vec<IncomingRecord>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "e2e-reader")
        .set("enable.auto.commit", "false")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata
        .topics()
        .first()
        .context("no such topic")?
        .partitions()
        .len() as i32;
    let mut records = Vec::new();
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        if low == high {
            continue;
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
        consumer.assign(&assignment)?;
        loop {
            let message = consumer.poll(TIMEOUT).context("the topic ended early")??;
            let offset = message.offset();
            records.push(record_of(&message));
            if offset + 1 >= high {
                break;
            }
        }
    }
    Ok(records)
}

fn record_of(message: &impl Message) -> IncomingRecord {
    IncomingRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(<[u8]>::to_vec),
        headers: message
            .headers()
            .map(|headers| {
                headers
                    .iter()
                    .map(|header| {
                        (
                            header.key.to_owned(),
                            header.value.unwrap_or_default().to_vec(),
                        )
                    })
                    .collect()
            })
            .unwrap_or_default(),
        payload: message.payload().map(<[u8]>::to_vec),
    }
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
