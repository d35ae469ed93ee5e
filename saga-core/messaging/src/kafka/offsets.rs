//! Reads the offsets that another group has committed.
//!
//! *No answer is not the same as not picked up*: the committed offsets of a participant's group show if it has consumed
//! a command. The client uses that group's name but never subscribes, so it is no member and changes nothing.

use super::{KafkaConfig, Mark, QUERY_TIMEOUT, blocking, context::Context, error::classify};
use crate::log::LogError;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A group's commit for a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Offset of the next record that the group will consume; `None` if it has committed none.
    pub offset: Option<i64>,
    /// The mark of the database behind the group, if the commit has one.
    pub mark: Option<Mark>,
}

/// Most events that are taken from the client's queue before a query: no other code empties the queue.
const EVENTS_A_QUESTION: usize = 100;

/// Reads the committed offsets of one group. After an error, nothing is known. Clones share one client.
#[derive(Clone)]
pub struct GroupOffsets {
    group: String,
    consumer: Arc<Asking>,
}

/// The client, which is `Some` until it is dropped.
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
            group: group.to_owned(),
            consumer: Arc::new(Asking(Some(consumer))),
        })
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    /// Runs a query on a thread for blocking work.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let consumer = Arc::clone(&self.consumer);
        blocking(move || {
            let client = consumer.client()?;
            serve_events(client);
            question(client)
        })
        .await
    }

    /// Returns the offset of the next record that the group will consume, by partition; 0 where it has committed none.
    pub async fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>, LogError> {
        let committed = self.marked(topic).await?.into_iter();
        Ok(committed
            .map(|(partition, committed)| (partition, committed.offset.unwrap_or(0)))
            .collect())
    }

    /// Returns everything that the group has committed, by partition.
    pub async fn marked(&self, topic: &str) -> Result<BTreeMap<i32, Committed>, LogError> {
        let topic = topic.to_owned();
        self.ask(move |client| marked(client, &topic)).await
    }

    /// Returns the offset of the oldest record kept, and the offset of the next record.
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

/// Returns the commits of the consumer's group for each partition of `topic`.
pub(super) fn marked(
    consumer: &impl Consumer<Context>,
    topic: &str,
) -> Result<BTreeMap<i32, Committed>, LogError> {
    let ask = || -> Result<BTreeMap<i32, Committed>, KafkaError> {
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
        let mut committed = BTreeMap::new();
        for element in consumer.committed_offsets(list, QUERY_TIMEOUT)?.elements() {
            element.error()?;
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                Offset::Beginning
                | Offset::End
                | Offset::Stored
                | Offset::Invalid
                | Offset::OffsetTail(_) => None,
            };
            let mark = element.metadata().parse().ok();
            committed.insert(element.partition(), Committed { offset, mark });
        }
        Ok(committed)
    };
    ask().map_err(|error| classify(error, topic))
}

/// Handles the client's events. Without a subscription there are no records, only errors that the context logs.
fn serve_events(consumer: &BaseConsumer<Context>) {
    for _ in 0..EVENTS_A_QUESTION {
        if consumer.poll(Duration::ZERO).is_none() {
            return;
        }
    }
}

impl Drop for Asking {
    /// Dropping the client waits for its threads, which must not block a thread of the runtime.
    fn drop(&mut self) {
        let consumer = self.0.take();
        if let Some(client) = &consumer {
            client.client().context().is_over();
        }
        std::thread::spawn(move || drop(consumer));
    }
}
