//! Reads the records that are appended to a topic from now on, for pages that show them live.

use super::{
    KafkaConfig, QUERY_TIMEOUT, blocking, context::Context, error::Refusal, error::classify, record,
};
use crate::log::LogError;
use futures_util::Stream;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
};
use saga_core::message::IncomingRecord;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::debug;

/// Records that wait for a slow page; later records stay at the broker.
const WAITING_RECORDS: usize = 256;
/// Group name: librdkafka assigns partitions only to a client that has one. Nothing is ever joined or committed under
/// it.
const GROUP: &str = "saga-tail";

/// Reads all partitions of a topic from their ends on, without a consumer group. Partitions that are added later are
/// not read.
pub struct Tail {
    records: mpsc::Receiver<IncomingRecord>,
    reading: JoinHandle<()>,
}

impl Tail {
    /// Opens the tail. Records that are acknowledged after this has returned are read.
    pub async fn open(config: &KafkaConfig, topic: &str) -> Result<Self, LogError> {
        let mut client = config.client()?;
        client
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("allow.auto.create.topics", "false")
            .set("auto.offset.reset", "latest")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "100")
            .set("queued.min.messages", "500");
        config.tune(&mut client);
        let consumer: StreamConsumer<Context> = client
            .create_with_context(Context::default())
            .map_err(|error| classify(error, topic))?;
        let consumer = Arc::new(consumer);
        let (assigning, name) = (Arc::clone(&consumer), topic.to_owned());
        blocking(move || assign_ends(&assigning, &name)).await?;
        let (sender, records) = mpsc::channel(WAITING_RECORDS);
        let reading = tokio::spawn(read(consumer, sender));
        Ok(Self { records, reading })
    }
}

fn assign_ends(consumer: &StreamConsumer<Context>, topic: &str) -> Result<(), LogError> {
    let refused = |error| classify(error, topic);
    let metadata = consumer
        .fetch_metadata(Some(topic), QUERY_TIMEOUT)
        .map_err(refused)?;
    let mut ends = TopicPartitionList::new();
    for found in metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic)
    {
        for partition in found.partitions() {
            let (_, end) = consumer
                .fetch_watermarks(topic, partition.id(), QUERY_TIMEOUT)
                .map_err(refused)?;
            ends.add_partition_offset(topic, partition.id(), Offset::Offset(end))
                .map_err(refused)?;
        }
    }
    if ends.count() == 0 {
        return Err(Refusal::NoTopic(topic.to_owned()).into());
    }
    consumer.assign(&ends).map_err(refused)
}

/// Reads until the page is closed.
async fn read(consumer: Arc<StreamConsumer<Context>>, sender: mpsc::Sender<IncomingRecord>) {
    let consumer = Closing(Some(consumer));
    while let Some(client) = &consumer.0 {
        match client.recv().await {
            Ok(message) => {
                if sender.send(record::incoming(&message)).await.is_err() {
                    return;
                }
            }
            Err(error) => debug!(
                error = &error as &dyn std::error::Error,
                "the tail continues after an error"
            ),
        }
    }
}

/// Closes the client on a thread where it may block.
struct Closing(Option<Arc<StreamConsumer<Context>>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let consumer = self.0.take();
        if let Some(client) = &consumer {
            client.client().context().is_over();
        }
        std::thread::spawn(move || drop(consumer));
    }
}

impl Stream for Tail {
    type Item = IncomingRecord;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<IncomingRecord>> {
        self.records.poll_recv(cx)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
