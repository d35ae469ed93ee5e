//! A topic from its first record to the end that it had when the reading began.

use super::TIMEOUT;
use crate::{error::AuditError, sources::Sources};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(100);

/// Never subscribes and never commits: it moves no partition and no offset of anybody.
pub fn client(sources: &Sources, group: &str) -> Result<BaseConsumer, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &sources.brokers)
        .set("group.id", group)
        .set("client.id", "saga-audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false");
    for (name, value) in &sources.kafka {
        config.set(name, value);
    }
    config.create()
}

pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, AuditError> {
    let metadata = consumer
        .fetch_metadata(Some(topic), TIMEOUT)
        .map_err(|source| AuditError::Topic {
            topic: topic.to_owned(),
            source,
        })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let ids: Vec<i32> = found
        .map(|found| {
            found
                .partitions()
                .iter()
                .map(|partition| partition.id())
                .collect()
        })
        .unwrap_or_default();
    if ids.is_empty() {
        return Err(AuditError::NoTopic(topic.to_owned()));
    }
    Ok(ids)
}

/// Hands every record to `take`. Returns the partitions that do not begin at offset 0 any more, with the time of the
/// oldest record that they still have (now, if they have none).
pub fn topic(
    consumer: &BaseConsumer,
    topic: &str,
    take: &mut dyn FnMut(&BorrowedMessage<'_>),
) -> Result<BTreeMap<i32, i64>, AuditError> {
    let failed = |source| AuditError::Topic {
        topic: topic.to_owned(),
        source,
    };
    let mut assignment = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    let mut trimmed = BTreeMap::new();
    for partition in partitions(consumer, topic)? {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, TIMEOUT)
            .map_err(failed)?;
        if low > 0 {
            trimmed.insert(partition, i64::MAX);
        }
        if low < high {
            ends.insert(partition, high);
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(low))
                .map_err(failed)?;
        }
    }
    consumer.assign(&assignment).map_err(failed)?;
    let mut quiet_since = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                quiet_since = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let Some(end) = ends.get(&partition).copied() else {
                    continue;
                };
                if offset < end {
                    if let Some(oldest) = trimmed.get_mut(&partition) {
                        let at = message.timestamp().to_millis().unwrap_or(i64::MAX);
                        *oldest = at.min(*oldest);
                    }
                    take(&message);
                }
                if offset + 1 >= end {
                    ends.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
            }
            // The client gets over what it can; what it cannot shows as silence.
            Some(Err(error)) if quiet_since.elapsed() > TIMEOUT => return Err(failed(error)),
            None if quiet_since.elapsed() > TIMEOUT => {
                return Err(AuditError::TopicEnd {
                    topic: topic.to_owned(),
                    missing: ends.len(),
                });
            }
            Some(Err(_)) | None => {}
        }
    }
    consumer
        .assign(&TopicPartitionList::new())
        .map_err(failed)?;
    Ok(trimmed)
}
