//! Reads a topic from a given offset on, without a consumer group.

use super::{KafkaConfig, QUERY_TIMEOUT, blocking, context::Context, error::classify, record};
use crate::log::LogError;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use saga_core::message::IncomingRecord;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Group name: librdkafka assigns partitions only to a client that has one. Nothing is ever joined or committed under
/// it.
const GROUP: &str = "saga-scan";
/// Longest time for one read, whatever the broker does.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes in one read: a few of the largest records, or as many of the usual size as a caller asks for.
const LOOK_LIMIT_BYTES: usize = 16 * 1024 * 1024;
/// Memory for records fetched ahead, which are thrown away after a read.
const FETCH_AHEAD_KIB: &str = "4096";

/// The offsets that a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// Offset of the oldest record kept.
    pub start: i64,
    /// Offset of the next record to be written.
    pub end: i64,
}

/// The result of one read.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub records: Vec<IncomingRecord>,
    pub window: OffsetRange,
    /// The offset at which the next read continues; at or beyond `window.end` there are no more records now.
    pub next: i64,
}

/// Reads topics by explicit offsets, in bounded chunks. Clones share one client, and wait for each other.
#[derive(Clone)]
pub struct TopicReader {
    consumer: Arc<Looking>,
}

/// The client, which is `Some` until it is dropped.
struct Looking(Mutex<Option<BaseConsumer<Context>>>);

impl TopicReader {
    pub fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.client()?;
        client
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "100")
            .set("queued.min.messages", "500")
            .set("queued.max.messages.kbytes", FETCH_AHEAD_KIB);
        config.tune(&mut client);
        let consumer = client
            .create_with_context(Context::default())
            .map_err(|error| classify(error, "the brokers"))?;
        Ok(Self {
            consumer: Arc::new(Looking(Mutex::new(Some(consumer)))),
        })
    }

    /// Returns the offset range of every partition of `topic`; empty if the topic does not exist.
    pub async fn windows(&self, topic: &str) -> Result<BTreeMap<i32, OffsetRange>, LogError> {
        let topic = topic.to_owned();
        self.with(move |consumer| windows(consumer, &topic)).await
    }

    /// Reads up to `limit` records from offset `from` on, or from the oldest record kept if that is later.
    pub async fn look(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        limit: usize,
    ) -> Result<Chunk, LogError> {
        let topic = topic.to_owned();
        self.with(move |consumer| look(consumer, &topic, partition, from, limit))
            .await
    }

    async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&BaseConsumer<Context>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let looking = Arc::clone(&self.consumer);
        blocking(move || {
            let client = looking.0.lock().unwrap_or_else(PoisonError::into_inner);
            let client = client
                .as_ref()
                .ok_or_else(|| LogError::Refused("the client is closed".into()))?;
            ask(client)
        })
        .await
    }
}

fn windows(
    consumer: &BaseConsumer<Context>,
    topic: &str,
) -> Result<BTreeMap<i32, OffsetRange>, LogError> {
    let metadata = consumer
        .fetch_metadata(Some(topic), QUERY_TIMEOUT)
        .map_err(|error| classify(error, topic))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let mut windows = BTreeMap::new();
    for partition in found.map_or(&[][..], |found| found.partitions()) {
        windows.insert(partition.id(), window(consumer, topic, partition.id())?);
    }
    Ok(windows)
}

fn window(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
) -> Result<OffsetRange, LogError> {
    let (start, end) = consumer
        .fetch_watermarks(topic, partition, QUERY_TIMEOUT)
        .map_err(|error| classify(error, topic))?;
    Ok(OffsetRange { start, end })
}

fn look(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
    from: i64,
    limit: usize,
) -> Result<Chunk, LogError> {
    let window = window(consumer, topic, partition)?;
    let from = from.max(window.start);
    let mut looked = Chunk {
        records: Vec::new(),
        window,
        next: from,
    };
    if from >= window.end || limit == 0 {
        return Ok(looked);
    }
    let refused = |error| classify(error, topic);
    let mut place = TopicPartitionList::new();
    place
        .add_partition_offset(topic, partition, Offset::Offset(from))
        .map_err(refused)?;
    consumer.assign(&place).map_err(refused)?;
    let gathered = gather(consumer, &mut looked, limit).map_err(refused);
    consumer.unassign().map_err(refused)?;
    gathered?;
    Ok(looked)
}

/// Reads up to the end of the offset range, or to a limit. Offsets without a record (a transaction's markers) are
/// skipped.
fn gather(
    consumer: &BaseConsumer<Context>,
    looked: &mut Chunk,
    limit: usize,
) -> Result<(), KafkaError> {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    let mut size_bytes = 0;
    while looked.records.len() < limit && looked.next < looked.window.end {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.poll(left) {
            None => break,
            Some(Err(KafkaError::PartitionEOF(_))) => looked.next = looked.window.end,
            Some(Err(error)) => return Err(error),
            Some(Ok(message)) => {
                let record = record::incoming(&message);
                looked.next = record.offset + 1;
                if record.offset >= looked.window.end {
                    break;
                }
                size_bytes += weight_of(&record);
                looked.records.push(record);
                if size_bytes >= LOOK_LIMIT_BYTES {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn weight_of(record: &IncomingRecord) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    headers + record.key.as_ref().map_or(0, Vec::len) + record.payload.as_ref().map_or(0, Vec::len)
}

impl Drop for Looking {
    /// Dropping the client waits for its threads, which must not block a thread of the runtime.
    fn drop(&mut self) {
        let consumer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(client) = &consumer {
            client.client().context().is_over();
        }
        std::thread::spawn(move || drop(consumer));
    }
}
