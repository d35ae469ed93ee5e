//! A member of a consumer group.

use super::{
    KafkaConfig, QUERY_TIMEOUT, blocking,
    context::{Context, Rebalanced},
    error::{Refusal, classify, explain, is_login},
    record,
};
use crate::gather::Gather;
use crate::log::{Held, LogError, LogReader, Polled, TopicPartition};
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, future::poll_fn};
use metrics::{counter, histogram};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use saga_core::message::IncomingRecord;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{info, warn};

/// A dead member's partitions move after this long; every saga must move again within ten seconds.
const SESSION_TIMEOUT_MS: &str = "6000";
/// Four heartbeats a session, so that one lost packet does not end it.
const HEARTBEAT_INTERVAL_MS: &str = "1500";
/// A member that has not polled for this long is wedged. Longer than any batch and its acknowledgments may take.
const MAX_POLL_INTERVAL_MS: &str = "60000";
/// A crash runs again what was done in this time; shorter costs requests.
const COMMIT_INTERVAL_MS: &str = "250";
/// The broker answers as soon as there is one byte, and after this long in any case. Partitions that are new to a member are
/// asked for with the next question; asking more often is what an idle system does all day.
const FETCH_WAIT_MAX_MS: &str = "250";
/// After a failed fetch (a leader moved) the next one follows soon.
const FETCH_ERROR_BACKOFF_MS: &str = "50";
/// Records fetched ahead a partition: several batches, so that a busy consumer never waits for the network.
const FETCH_AHEAD_RECORDS: &str = "2000";
/// How long the client then looks away from a partition. Its default of a second is longer than the batches last: under a
/// backlog consumers stood still most of the time.
const FETCH_AHEAD_PAUSE_MS: &str = "5";
/// A batch that holds this many waits for no more.
const GATHER_ENOUGH: usize = 200;
/// So much may come in while a batch waits for its next try; beyond it, partitions are paused.
const HELD_RECORDS: usize = 2_000;
const HELD_BYTES: usize = 4 * 1024 * 1024;
/// Memory for what is fetched ahead, all partitions together.
const FETCH_AHEAD_KIB: &str = "32768";
/// How often lag is measured.
const STATISTICS_INTERVAL_MS: &str = "5000";
/// Metadata of a topic that was just created may reach a broker later than the client asks it.
const TOPIC_GRACE: Duration = Duration::from_secs(10);
/// Between two looks for a topic that is missing.
const TOPIC_RETRY: Duration = Duration::from_millis(500);
/// Leaving a group takes a round trip; a broker that is away must not keep a process from stopping.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What differs between consumers.
#[derive(Clone, Debug, Default)]
pub struct ReaderOptions {
    /// Static membership: a member that comes back under this name within the session timeout gets its partitions
    /// back without a rebalance. Must be unique in the group.
    pub group_instance_id: Option<String>,
}

/// Reads the records of one member of a consumer group. See [`LogReader`].
pub struct KafkaReader {
    /// `None` once closed.
    consumer: Option<Arc<StreamConsumer<Context>>>,
    group: String,
    topics: Vec<String>,
    assigned: BTreeSet<TopicPartition>,
    rebalanced: VecDeque<Rebalanced>,
    /// Received and not yet handed out; never of a partition that was revoked.
    buffer: VecDeque<IncomingRecord>,
    refused: Option<LogError>,
    gather: Gather,
    /// Before the first assignment a missing topic or a refused login is a mistake; later it is an incident.
    started: bool,
}

/// What one look at the client brought.
enum Step {
    Record,
    Rebalanced,
    Error(KafkaError),
}

impl KafkaReader {
    /// Joins `group` and reads `topics` from its committed offsets, or from the beginning.
    pub fn subscribe(
        config: &KafkaConfig,
        group: &str,
        topics: &[&str],
        options: ReaderOptions,
    ) -> Result<Self, LogError> {
        let mut client = config.client()?;
        consume(&mut client, group);
        if let Some(id) = options.group_instance_id {
            client.set("group.instance.id", id);
        }
        config.tune(&mut client);
        let consumer: StreamConsumer<Context> = client
            .create_with_context(Context::for_group(group))
            .map_err(|error| classify(error, group))?;
        consumer
            .subscribe(topics)
            .map_err(|error| classify(error, &topics.join(", ")))?;
        Ok(Self {
            consumer: Some(Arc::new(consumer)),
            group: group.to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            assigned: BTreeSet::new(),
            rebalanced: VecDeque::new(),
            buffer: VecDeque::new(),
            refused: None,
            gather: Gather::new(),
            started: false,
        })
    }

    /// The partitions that are this member's now.
    pub fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.iter()
    }

    fn consumer(&self) -> Result<Arc<StreamConsumer<Context>>, LogError> {
        self.consumer
            .clone()
            .ok_or_else(|| LogError::Refused("the reader is closed".into()))
    }

    /// Waits for the next thing the client has. Cancel safe: a record is in the buffer before this returns.
    async fn step(&mut self) -> Result<Step, LogError> {
        let consumer = self.consumer()?;
        let mut stream = consumer.stream();
        Ok(poll_fn(|cx| {
            let polled = stream.poll_next_unpin(cx);
            if let Poll::Ready(Some(Ok(message))) = &polled {
                self.buffer.push_back(record::incoming(message));
            }
            let moved = self.absorb(consumer.client().context());
            match polled {
                Poll::Ready(Some(Ok(_))) => Poll::Ready(Step::Record),
                Poll::Ready(Some(Err(error))) => Poll::Ready(Step::Error(error)),
                Poll::Ready(None) | Poll::Pending if moved => Poll::Ready(Step::Rebalanced),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await)
    }

    /// Takes what has arrived, without waiting, until the buffer holds `limit` records.
    async fn drain(&mut self, limit: usize) -> Result<(), LogError> {
        let consumer = self.consumer()?;
        let mut stream = consumer.stream();
        while self.buffer.len() < limit {
            match poll_fn(|cx| Poll::Ready(stream.poll_next_unpin(cx))).await {
                Poll::Ready(Some(Ok(message))) => self.buffer.push_back(record::incoming(&message)),
                Poll::Ready(Some(Err(error))) => self.note(error),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        self.absorb(consumer.client().context());
        Ok(())
    }

    /// Waits for more, if that is worth it.
    async fn gather(&mut self, asked: Instant, limit: usize) -> Result<(), LogError> {
        let here = self.buffer.len();
        let enough = GATHER_ENOUGH.min(limit);
        let Some(until) = self.gather.until(asked, here, enough) else {
            return Ok(());
        };
        sleep_until(until).await;
        self.drain(limit).await
    }

    /// Takes over how the partitions moved. Runs after every look at the client, so that records received before a
    /// revocation are told from those of a later assignment of the same partition.
    fn absorb(&mut self, context: &Context) -> bool {
        let mut moved = false;
        while let Some(rebalanced) = context.take_rebalanced() {
            moved = true;
            match &rebalanced {
                Rebalanced::Assigned(partitions) => {
                    self.started = true;
                    self.assigned.extend(partitions.iter().cloned());
                }
                Rebalanced::Revoked(partitions) => {
                    for partition in partitions {
                        self.assigned.remove(partition);
                        context.lag(&partition.topic, partition.partition, 0);
                    }
                    self.buffer.retain(|record| {
                        !partitions.iter().any(|gone| {
                            gone.partition == record.partition && gone.topic == record.topic
                        })
                    });
                }
            }
            self.rebalanced.push_back(rebalanced);
        }
        moved
    }

    /// Sorts an error: most of them the client gets over by itself and has logged already.
    fn note(&mut self, error: KafkaError) {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if fatal || !self.started {
            let topics = self.topics.join(", ");
            let code = error.rdkafka_error_code();
            // One of several brokers may have a wrong certificate, and another lets the client in.
            let told = is_login(code) || code == Some(RDKafkaErrorCode::AllBrokersDown);
            let sorted = match &self.consumer {
                Some(consumer) if told => {
                    explain(error, &topics, consumer.client().context().admission())
                }
                Some(_) | None => classify(error, &topics),
            };
            if let refused @ LogError::Refused(_) = sorted {
                self.refused.get_or_insert(refused);
            }
            return;
        }
        warn!(
            error = &error as &dyn std::error::Error,
            messaging.consumer.group.name = self.group,
            "reading goes on after an error"
        );
    }

    /// Whether a topic is really missing: tells a mistake from metadata that is on its way.
    async fn confirm_missing(&mut self) -> Result<(), LogError> {
        let consumer = self.consumer()?;
        let deadline = Instant::now() + TOPIC_GRACE;
        let mut topics = self.topics.clone();
        loop {
            let (asked, client) = (topics.clone(), Arc::clone(&consumer));
            topics = blocking(move || missing(&client, &asked)).await?;
            let Some(topic) = topics.first() else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(Refusal::NoTopic(topic.clone()).into());
            }
            sleep(TOPIC_RETRY).await;
        }
    }

    fn pause(&self, consumer: &StreamConsumer<Context>, paused: &mut BTreeSet<TopicPartition>) {
        let fresh: Vec<_> = self.assigned.difference(paused).cloned().collect();
        if fresh.is_empty() {
            return;
        }
        if let Err(error) = consumer.pause(&list_of(&fresh)) {
            warn!(
                error = &error as &dyn std::error::Error,
                "intake could not be paused"
            );
        }
        paused.extend(fresh);
    }

    fn revocation_is_due(&self) -> bool {
        self.rebalanced
            .iter()
            .any(|rebalanced| matches!(rebalanced, Rebalanced::Revoked(_)))
    }

    /// Polls on until `time` is over or partitions are revoked, pausing what is assigned once enough has come in.
    async fn keep_polling(
        &mut self,
        consumer: &StreamConsumer<Context>,
        time: Duration,
        paused: &mut BTreeSet<TopicPartition>,
    ) -> Held {
        let deadline = Instant::now() + time;
        let mut bytes = 0;
        loop {
            // A partition that is resumed brings nothing for a second: what a short wait lets come in costs less.
            if self.buffer.len() >= HELD_RECORDS || bytes >= HELD_BYTES {
                self.pause(consumer, paused);
            }
            if self.revocation_is_due() {
                return Held::Lost;
            }
            match tokio::time::timeout_at(deadline, self.step()).await {
                Err(_) => return Held::Elapsed,
                Ok(Ok(Step::Record)) => {
                    let payload = self.buffer.back().and_then(|last| last.payload.as_ref());
                    bytes += payload.map_or(0, Vec::len);
                    if Instant::now() >= deadline {
                        return Held::Elapsed;
                    }
                }
                Ok(Ok(Step::Rebalanced)) => {}
                Ok(Ok(Step::Error(error))) => self.note(error),
                Ok(Err(closed)) => {
                    self.refused.get_or_insert(closed);
                    return Held::Lost;
                }
            }
        }
    }
}

fn consume(client: &mut ClientConfig, group: &str) {
    client
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", COMMIT_INTERVAL_MS)
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("session.timeout.ms", SESSION_TIMEOUT_MS)
        .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS)
        .set("max.poll.interval.ms", MAX_POLL_INTERVAL_MS)
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", FETCH_WAIT_MAX_MS)
        .set("fetch.error.backoff.ms", FETCH_ERROR_BACKOFF_MS)
        .set("queued.min.messages", FETCH_AHEAD_RECORDS)
        .set("queued.max.messages.kbytes", FETCH_AHEAD_KIB)
        .set("fetch.queue.backoff.ms", FETCH_AHEAD_PAUSE_MS)
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
        // A topic that is created later, or has more partitions, is noticed within seconds.
        .set("topic.metadata.refresh.interval.ms", "10000");
}

fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// Those of `topics` that no broker knows.
fn missing(consumer: &StreamConsumer<Context>, topics: &[String]) -> Result<Vec<String>, LogError> {
    let mut missing = Vec::new();
    for topic in topics {
        let metadata = consumer
            .fetch_metadata(Some(topic), QUERY_TIMEOUT)
            .map_err(|error| classify(error, topic))?;
        let known = metadata
            .topics()
            .iter()
            .any(|found| found.name() == topic && !found.partitions().is_empty());
        if !known {
            missing.push(topic.clone());
        }
    }
    Ok(missing)
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn poll(&mut self, limit: usize) -> Result<Polled, LogError> {
        let asked = Instant::now();
        loop {
            if let Some(refused) = self.refused.take() {
                return Err(refused);
            }
            match self.rebalanced.pop_front() {
                Some(Rebalanced::Assigned(partitions)) => return Ok(Polled::Assigned(partitions)),
                Some(Rebalanced::Revoked(partitions)) => return Ok(Polled::Revoked(partitions)),
                None => {}
            }
            if self.buffer.is_empty() {
                match self.step().await? {
                    Step::Record | Step::Rebalanced => {}
                    Step::Error(error) if !self.started && is_unknown_topic(&error) => {
                        self.confirm_missing().await?;
                    }
                    Step::Error(error) => self.note(error),
                }
                continue;
            }
            self.drain(limit).await?;
            self.gather(asked, limit).await?;
            if !self.rebalanced.is_empty() || self.buffer.is_empty() {
                continue;
            }
            let count = self.buffer.len().min(limit.max(1));
            let records: Vec<_> = self.buffer.drain(..count).collect();
            self.measure(&records);
            self.gather.hand_out(count);
            return Ok(Polled::Records(records));
        }
    }

    fn done(&mut self, records: &[IncomingRecord]) -> Result<(), LogError> {
        let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for record in records {
            let offset = next.entry((&record.topic, record.partition)).or_default();
            *offset = (*offset).max(record.offset + 1);
        }
        let mut list = TopicPartitionList::with_capacity(next.len());
        for ((topic, partition), offset) in next {
            let ours = self
                .assigned
                .iter()
                .any(|assigned| assigned.partition == partition && assigned.topic == topic);
            if ours {
                list.add_partition_offset(topic, partition, Offset::Offset(offset))
                    .map_err(|error| classify(error, topic))?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        if let Err(error) = self.consumer()?.store_offsets(&list) {
            // Only a partition that is being taken away refuses: its next owner reads the records again.
            info!(
                error = &error as &dyn std::error::Error,
                "offsets are not stored"
            );
        }
        Ok(())
    }

    /// Pausing makes the client forget what it fetched ahead and fetch it again later, from behind the last record
    /// that it handed out; what was handed out meanwhile waits in the buffer.
    async fn hold(&mut self, time: Duration) -> Held {
        let Ok(consumer) = self.consumer() else {
            return Held::Lost;
        };
        let mut paused = BTreeSet::new();
        let held = self.keep_polling(&consumer, time, &mut paused).await;
        let paused: Vec<_> = paused.into_iter().collect();
        if !paused.is_empty()
            && let Err(error) = consumer.resume(&list_of(&paused))
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "intake could not be resumed"
            );
        }
        held
    }

    async fn close(&mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        self.buffer.clear();
        if timeout(CLOSE_TIMEOUT, close(consumer)).await.is_err() {
            warn!(
                messaging.consumer.group.name = self.group,
                "the group was not left in time, its session will expire"
            );
        }
    }
}

impl KafkaReader {
    fn measure(&self, records: &[IncomingRecord]) {
        histogram!("saga_batch_records", "group" => self.group.clone())
            .record(records.len() as f64);
        for run in records.chunk_by(|a, b| a.topic == b.topic) {
            counter!(
                "saga_records_consumed_total",
                "topic" => run[0].topic.clone(),
                "group" => self.group.clone()
            )
            .increment(run.len() as u64);
        }
    }
}

/// Commits what is stored and leaves the group, on a thread that nobody has to wait for: a runtime that ends waits for
/// its own blocking threads, and a broker that is away would keep the process from stopping.
fn close(consumer: Arc<StreamConsumer<Context>>) -> impl Future<Output = ()> {
    let (closed, closing) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        drop(consumer);
        drop(closed);
    });
    closing.map(drop)
}

fn is_unknown_topic(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)
    )
}

impl Drop for KafkaReader {
    /// Dropping the client waits for the broker, which the runtime's threads must not.
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop(close(consumer));
        }
    }
}
