//! What another group has consumed.
//!
//! *No answer is not the same as not picked up*: whether a participant has consumed a command is read from its group's
//! committed offsets. The client carries that group's name but never subscribes, so it is no member and moves nothing.

use super::{KafkaConfig, QUERY_TIMEOUT, blocking, context::Context, error::classify};
use crate::log::LogError;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Events that the client has queued since the last question, at most; nobody else takes them off its queue.
const EVENTS_A_QUESTION: usize = 100;

/// Reads the committed offsets of one group. An error means that nothing is known. Clones share one client.
#[derive(Clone)]
pub struct GroupOffsets {
    consumer: Arc<Asking>,
}

/// `Some` until dropped.
struct Asking(Option<BaseConsumer<Context>>);

impl Asking {
    fn client(&self) -> Result<&BaseConsumer<Context>, LogError> {
        let closed = || LogError::Refused("the client is closed".into());
        self.0.as_ref().ok_or_else(closed)
    }
}

impl GroupOffsets {
    pub fn connect(config: &KafkaConfig, group: &str) -> Result<Self, LogError> {
        let mut client = config.client()?;
        client
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "false");
        config.tune(&mut client);
        let consumer = client
            .create_with_context(Context::for_group(group))
            .map_err(|error| classify(error, group))?;
        Ok(Self {
            consumer: Arc::new(Asking(Some(consumer))),
        })
    }

    /// By partition, the offset of the next record that the group will consume; 0 where it has committed none.
    pub async fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, LogError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), topic.to_owned());
        blocking(move || {
            let client = consumer.client()?;
            serve_events(client);
            committed(client, &topic).map_err(|error| classify(error, &topic))
        })
        .await
    }

    /// The offset of the oldest record kept, and the one that the next record will get.
    pub async fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), LogError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), topic.to_owned());
        blocking(move || {
            consumer
                .client()?
                .fetch_watermarks(&topic, partition, QUERY_TIMEOUT)
                .map_err(|error| classify(error, &topic))
        })
        .await
    }
}

fn committed(
    consumer: &BaseConsumer<Context>,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), QUERY_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let mut list = TopicPartitionList::new();
    for partition in found.map_or(&[][..], |found| found.partitions()) {
        list.add_partition(topic, partition.id());
    }
    if list.count() == 0 {
        return Err(KafkaError::MetadataFetch(
            rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition,
        ));
    }
    let mut offsets = BTreeMap::new();
    for element in consumer.committed_offsets(list, QUERY_TIMEOUT)?.elements() {
        element.error()?;
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            Offset::Beginning
            | Offset::End
            | Offset::Stored
            | Offset::Invalid
            | Offset::OffsetTail(_) => 0,
        };
        offsets.insert(element.partition(), offset);
    }
    Ok(offsets)
}

/// Without a subscription there are no records, only errors that the context logs.
fn serve_events(consumer: &BaseConsumer<Context>) {
    for _ in 0..EVENTS_A_QUESTION {
        if consumer.poll(Duration::ZERO).is_none() {
            return;
        }
    }
}

impl Drop for Asking {
    /// Dropping the client waits for its threads, which the runtime's must not.
    fn drop(&mut self) {
        let consumer = self.0.take();
        std::thread::spawn(move || drop(consumer));
    }
}
