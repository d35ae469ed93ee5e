//! Reads topics from their first records to the ends that they had when reading began.

use crate::{error::AuditError, sources::Sources};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
    metadata::MetadataPartition,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Time limit for an answer of a broker. After it, the broker counts as unavailable.
pub const TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

/// Makes a consumer that neither subscribes nor commits, so that it changes no assignment and no offset.
pub fn client(sources: &Sources, group: &str) -> Result<BaseConsumer, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &sources.brokers)
        .set("group.id", group)
        .set("client.id", "saga-audit")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        // A partition without new records must not delay the records of other partitions.
        .set("fetch.wait.max.ms", "20");
    for (name, value) in &sources.kafka {
        config.set(name, value);
    }
    config.create()
}

pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, AuditError> {
    let metadata = consumer
        .fetch_metadata(Some(topic), TIMEOUT)
        .map_err(|source| failed(topic, source))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.map_or(&[][..], |found| found.partitions());
    if partitions.is_empty() {
        return Err(AuditError::NoTopic(topic.to_owned()));
    }
    Ok(partitions.iter().map(MetadataPartition::id).collect())
}

fn failed(topic: &str, source: KafkaError) -> AuditError {
    AuditError::Topic {
        topic: topic.to_owned(),
        source,
    }
}

/// The offsets to read, and the partitions that have already lost records.
struct Extent {
    assignment: TopicPartitionList,
    /// Offset at which reading of a partition ends.
    ends: BTreeMap<(String, i32), i64>,
    trimmed: BTreeMap<(String, i32), i64>,
}

/// Passes every record of the topics to `take`, each partition's in order. Returns the partitions that do not begin at
/// offset 0 any more, with the time of their oldest record (`i64::MAX` if they have none).
pub fn all(
    consumer: &BaseConsumer,
    topics: &[String],
    take: &mut dyn FnMut(&BorrowedMessage<'_>),
) -> Result<BTreeMap<(String, i32), i64>, AuditError> {
    let Extent {
        assignment,
        mut ends,
        mut trimmed,
    } = extent(consumer, topics)?;
    consumer
        .assign(&assignment)
        .map_err(|source| failed("(all)", source))?;
    let mut quiet_since = Instant::now();
    while let Some((first, _)) = ends.first_key_value() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                quiet_since = Instant::now();
                let place = (message.topic().to_owned(), message.partition());
                // Records beyond the end that was read at the start are ignored.
                let Some(end) = ends.get(&place).copied() else {
                    continue;
                };
                if message.offset() < end {
                    if let Some(oldest) = trimmed.get_mut(&place) {
                        let at = message.timestamp().to_millis().unwrap_or(i64::MAX);
                        *oldest = at.min(*oldest);
                    }
                    take(&message);
                }
                if message.offset() + 1 >= end {
                    ends.remove(&place);
                }
            }
            // The client recovers from most errors itself. Those that it cannot recover from show as silence.
            Some(Err(error)) if quiet_since.elapsed() > TIMEOUT => {
                return Err(failed(&first.0, error));
            }
            None if quiet_since.elapsed() > TIMEOUT => {
                return Err(AuditError::TopicEnd {
                    topic: first.0.clone(),
                    missing: ends.len(),
                });
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(trimmed)
}

fn extent(consumer: &BaseConsumer, topics: &[String]) -> Result<Extent, AuditError> {
    let mut extent = Extent {
        assignment: TopicPartitionList::new(),
        ends: BTreeMap::new(),
        trimmed: BTreeMap::new(),
    };
    for topic in topics {
        for partition in partitions(consumer, topic)? {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, TIMEOUT)
                .map_err(|source| failed(topic, source))?;
            let place = (topic.clone(), partition);
            if low > 0 {
                extent.trimmed.insert(place.clone(), i64::MAX);
            }
            if low < high {
                extent.ends.insert(place, high);
                extent
                    .assignment
                    .add_partition_offset(topic, partition, Offset::Offset(low))
                    .map_err(|source| failed(topic, source))?;
            }
        }
    }
    Ok(extent)
}
