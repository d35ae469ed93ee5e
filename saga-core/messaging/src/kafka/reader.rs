//! Reads records as a member of a consumer group.

use super::{
    KafkaConfig, QUERY_TIMEOUT,
    admission::is_login,
    blocking,
    claim::claim,
    context::{Context, Rebalanced},
    error::{Refusal, classify, explain},
    record,
};
use crate::{
    database::Database,
    linger::Linger,
    log::{LogError, LogReader, PauseEnded, PollResult, TopicPartition},
    progress::Progress,
};
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, future::poll_fn};
use metrics::{counter, histogram};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use saga_core::message::IncomingRecord;
use saga_postgres::clock::Clock;
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

/// A dead member's partitions are reassigned after this long; every saga must continue within ten seconds.
const SESSION_TIMEOUT_MS: &str = "6000";
/// Four heartbeats a session, so that one lost packet does not end it.
const HEARTBEAT_INTERVAL_MS: &str = "1500";
/// A member that has not polled for this long counts as hung. It is longer than any batch and its acknowledgments may
/// take.
const MAX_POLL_INTERVAL_MS: &str = "60000";
/// After a crash, the work of this interval is repeated; a shorter interval costs more requests.
const COMMIT_INTERVAL_MS: &str = "250";
/// The broker answers a fetch as soon as there is one byte, and after this long in any case. Newly assigned partitions
/// are fetched with the next request; a shorter wait would make an idle system send more requests all day.
const FETCH_WAIT_MAX_MS: &str = "250";
/// Pause before the next fetch after one that failed because a leader moved.
const FETCH_ERROR_BACKOFF_MS: &str = "50";
/// Records fetched ahead for each partition: several batches, so that a busy consumer never waits for the network.
const FETCH_AHEAD_RECORDS: &str = "2000";
/// How long the client then stops fetching a partition. Its default of a second is longer than the fetched batches
/// last: with a backlog, consumers were idle most of the time.
const FETCH_AHEAD_PAUSE_MS: &str = "5";
/// A batch with this many records does not linger.
const GATHER_ENOUGH: usize = 200;
/// Records and bytes that may arrive while a batch waits for its next attempt; beyond them, partitions are paused.
const HELD_RECORDS: usize = 2_000;
const HELD_BYTES: usize = 4 * 1024 * 1024;
/// Memory for records fetched ahead, for all partitions together.
const FETCH_AHEAD_KIB: &str = "32768";
/// How often lag is measured.
pub(super) const STATISTICS_INTERVAL_MS: &str = "5000";
/// How long a topic may be missing: the metadata of a new topic may reach a broker after the client asks for it.
const TOPIC_GRACE: Duration = Duration::from_secs(10);
/// Time between two checks for a missing topic.
const TOPIC_RETRY: Duration = Duration::from_millis(500);
/// Time between two checks whether the responsible member has claimed the group for its database.
const CLAIM_RETRY: Duration = Duration::from_millis(100);
/// Time between two checks whether the database has ticked since an offset was committed.
const REMARK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time to leave a group, which takes a round trip; an unavailable broker must not keep a process from
/// stopping.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Options that differ between consumers.
#[derive(Clone, Debug, Default)]
pub struct ReaderOptions {
    /// Static membership: a member that comes back under this name within the session timeout gets its partitions back
    /// without a rebalance. The name must be unique in the group.
    pub group_instance_id: Option<String>,
    /// The database that the records' work is written to. Commits carry its mark, and a group that belongs to another
    /// database ends the reader before it returns a record. `None` checks nothing.
    pub database: Option<Arc<Database>>,
    /// Is notified of partitions from which nothing more can be read.
    pub progress: Progress,
}

/// Reads the records of one member of a consumer group. See [`LogReader`].
pub struct KafkaReader {
    /// The client, which is `None` once closed.
    consumer: Option<Arc<StreamConsumer<Context>>>,
    group: String,
    topics: Vec<String>,
    database: Option<Arc<Database>>,
    assigned: BTreeSet<TopicPartition>,
    rebalanced: VecDeque<Rebalanced>,
    /// Records that were received and not yet returned; never records of a revoked partition.
    buffer: VecDeque<IncomingRecord>,
    refused: Option<LogError>,
    gather: Linger,
    unmarked: Unmarked,
    /// Before the first assignment, a missing topic or a refused login is a configuration mistake; later it is an
    /// incident.
    started: bool,
}

/// The newest offsets of handled records whose mark has a tick from before the records were handled.
///
/// The database ticks after the work, so the first commit of an offset cannot carry the tick that counts the work. If no
/// record followed, a database that was restored to a state before the work would not look older than its group.
#[derive(Default)]
struct Unmarked {
    /// The offset, and the tick in its mark.
    offsets: BTreeMap<TopicPartition, (i64, i64)>,
    checked_at: Option<Instant>,
}

/// The result of one poll of the client.
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
            .create_with_context(Context::for_group(group).with_progress(options.progress))
            .map_err(|error| classify(error, group))?;
        consumer
            .subscribe(topics)
            .map_err(|error| classify(error, &topics.join(", ")))?;
        Ok(Self {
            consumer: Some(Arc::new(consumer)),
            group: group.to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            database: options.database,
            assigned: BTreeSet::new(),
            rebalanced: VecDeque::new(),
            buffer: VecDeque::new(),
            refused: None,
            gather: Linger::default(),
            unmarked: Unmarked::default(),
            started: false,
        })
    }

    /// Returns the partitions that are assigned to this member.
    pub fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.iter()
    }

    fn consumer(&self) -> Result<Arc<StreamConsumer<Context>>, LogError> {
        self.consumer
            .clone()
            .ok_or_else(|| LogError::Refused("the reader is closed".into()))
    }

    /// Waits for the client's next event. Cancel safe: a record is in the buffer before this returns.
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

    /// Takes the records that have arrived, without waiting, until the buffer holds `limit` records.
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

    /// Lingers for more records if that is worthwhile.
    async fn gather(&mut self, asked: Instant, limit: usize) -> Result<(), LogError> {
        let here = self.buffer.len();
        let enough = GATHER_ENOUGH.min(limit);
        let Some(until) = self.gather.until(asked, here, enough) else {
            return Ok(());
        };
        sleep_until(until).await;
        self.drain(limit).await
    }

    /// Takes over changes of the assignment. It runs after every poll of the client, so that records received before a
    /// revocation are distinguished from those of a later assignment of the same partition.
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
                        self.unmarked.offsets.remove(partition);
                        context.gone(&partition.topic, partition.partition);
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

    /// Commits offsets again, with the new mark, if the database has ticked since they were committed.
    fn remark(&mut self) -> Result<(), LogError> {
        let recently = |at: Instant| at.elapsed() < REMARK_INTERVAL;
        let Some(database) = &self.database else {
            return Ok(());
        };
        if self.unmarked.offsets.is_empty() || self.unmarked.checked_at.is_some_and(recently) {
            return Ok(());
        }
        self.unmarked.checked_at = Some(Instant::now());
        let tick = database.tick();
        let due = self
            .unmarked
            .offsets
            .extract_if(.., |_, (_, marked)| *marked < tick);
        let mut list = TopicPartitionList::new();
        for (TopicPartition { topic, partition }, (offset, _)) in due {
            let mut element = list.add_partition(&topic, partition);
            element
                .set_offset(Offset::Offset(offset))
                .map_err(|error| classify(error, &topic))?;
            element.set_metadata(database.mark(&topic).to_string());
        }
        if list.count() == 0 {
            return Ok(());
        }
        let consumer = self.consumer()?;
        // The offsets are stored, too: when the client closes, it commits what is stored, with the mark that is stored.
        let stored = consumer.store_offsets(&list);
        if let Err(error) = stored.and_then(|()| consumer.commit(&list, CommitMode::Async)) {
            info!(
                error = &error as &dyn std::error::Error,
                "offsets are not marked with the database's newest tick"
            );
        }
        Ok(())
    }

    /// Waits for the client's next event as [`step`](Self::step) does. Returns `None` when it is time to look whether
    /// the database has ticked.
    async fn step_or_remark(&mut self) -> Result<Option<Step>, LogError> {
        if self.unmarked.offsets.is_empty() {
            return self.step().await.map(Some);
        }
        match tokio::time::timeout(REMARK_INTERVAL, self.step()).await {
            Ok(step) => step.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Handles an error. The client recovers from most errors by itself, and has logged them already.
    fn note(&mut self, error: KafkaError) {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if fatal || !self.started {
            let topics = self.topics.join(", ");
            let code = error.rdkafka_error_code();
            if code == Some(RDKafkaErrorCode::InconsistentGroupProtocol) {
                // The client tries again by itself, without a report.
                warn!(
                    messaging.consumer.group.name = self.group,
                    "members of the group share its partitions in another way than cooperative-sticky: waiting until they \
                     are gone"
                );
            }
            // One of several brokers may have a wrong certificate, while another lets the client in.
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
            "reading continues after an error"
        );
    }

    /// Returns an error if a topic stays missing, which distinguishes a mistake from metadata that has not spread yet.
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

    /// Waits until the group is known to belong to this database, before any record of a new assignment is returned.
    /// The wait ends early if the partitions are revoked.
    async fn approve_database(&mut self) -> Result<(), LogError> {
        let Some(database) = self.database.clone() else {
            return Ok(());
        };
        while !self.revocation_is_due() {
            match self.claim(&database).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // A rebalance is in progress, or the coordinator moves.
                Err(LogError::Unavailable(error)) => info!(
                    error = &*error as &dyn std::error::Error,
                    messaging.consumer.group.name = self.group,
                    "the database that the group belongs to cannot be read yet"
                ),
                Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_))) => {
                    return Err(refused);
                }
            }
            self.hold(CLAIM_RETRY).await;
        }
        Ok(())
    }

    async fn claim(&self, database: &Arc<Database>) -> Result<bool, LogError> {
        let consumer = self.consumer()?;
        let (group, topics) = (self.group.clone(), self.topics.clone());
        let (assigned, database) = (self.assigned.clone(), Arc::clone(database));
        blocking(move || {
            for topic in &topics {
                let of_topic = assigned.iter().filter(|place| place.topic == *topic);
                let here = of_topic.map(|place| place.partition).collect();
                if !claim(&*consumer, &group, topic, &here, &database.mark(topic))? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
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

    /// Keeps polling until `time` is over or partitions are revoked. Pauses the assigned partitions once enough records
    /// have arrived.
    async fn keep_polling(
        &mut self,
        consumer: &StreamConsumer<Context>,
        time: Duration,
        paused: &mut BTreeSet<TopicPartition>,
    ) -> PauseEnded {
        let deadline = Instant::now() + time;
        let mut bytes = 0;
        loop {
            // A resumed partition returns nothing for a second, so buffering the records of a short wait costs less.
            if self.buffer.len() >= HELD_RECORDS || bytes >= HELD_BYTES {
                self.pause(consumer, paused);
            }
            if self.revocation_is_due() {
                return PauseEnded::Revoked;
            }
            match tokio::time::timeout_at(deadline, self.step()).await {
                Err(_) => return PauseEnded::Elapsed,
                Ok(Ok(Step::Record)) => {
                    let payload = self.buffer.back().and_then(|last| last.payload.as_ref());
                    bytes += payload.map_or(0, Vec::len);
                    if Instant::now() >= deadline {
                        return PauseEnded::Elapsed;
                    }
                }
                Ok(Ok(Step::Rebalanced)) => {}
                Ok(Ok(Step::Error(error))) => self.note(error),
                Ok(Err(closed)) => {
                    self.refused.get_or_insert(closed);
                    return PauseEnded::Revoked;
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
        // A topic that is created later, or gets more partitions, is noticed within seconds.
        .set("topic.metadata.refresh.interval.ms", "10000");
}

fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// Returns those of `topics` that no broker knows.
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
    async fn poll(&mut self, limit: usize) -> Result<PollResult, LogError> {
        let asked = Instant::now();
        loop {
            if let Some(refused) = self.refused.take() {
                return Err(refused);
            }
            self.remark()?;
            if let Some(Rebalanced::Assigned(_)) = self.rebalanced.front() {
                self.approve_database().await?;
            }
            match self.rebalanced.pop_front() {
                Some(Rebalanced::Assigned(partitions)) => {
                    return Ok(PollResult::Assigned(partitions));
                }
                Some(Rebalanced::Revoked(partitions)) => {
                    return Ok(PollResult::Revoked(partitions));
                }
                None => {}
            }
            if self.buffer.is_empty() {
                match self.step_or_remark().await? {
                    None | Some(Step::Record | Step::Rebalanced) => {}
                    Some(Step::Error(error)) if !self.started && is_unknown_topic(&error) => {
                        self.confirm_missing().await?;
                    }
                    Some(Step::Error(error)) => self.note(error),
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
            Clock::of_process().heard(&records);
            self.gather.hand_out(count);
            return Ok(PollResult::Records(records));
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
                let mut element = list.add_partition(topic, partition);
                element
                    .set_offset(Offset::Offset(offset))
                    .map_err(|error| classify(error, topic))?;
                if let Some(database) = &self.database {
                    let mark = database.mark(topic);
                    element.set_metadata(mark.to_string());
                    let topic = topic.to_owned();
                    let place = TopicPartition { topic, partition };
                    database.done(place.clone(), offset);
                    self.unmarked.offsets.insert(place, (offset, mark.tick));
                }
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        if let Err(error) = self.consumer()?.store_offsets(&list) {
            // Only a partition that is being revoked refuses; its next owner reads the records again.
            info!(
                error = &error as &dyn std::error::Error,
                "offsets are not stored"
            );
        }
        Ok(())
    }

    /// Pausing makes the client drop its fetched records and fetch them again later, after the last record that it
    /// returned. The records that it returned meanwhile wait in the buffer.
    async fn hold(&mut self, time: Duration) -> PauseEnded {
        let Ok(consumer) = self.consumer() else {
            return PauseEnded::Revoked;
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

/// Commits the stored offsets and leaves the group, on a separate thread. A runtime waits for its blocking threads when
/// it ends, so an unavailable broker would keep the process from stopping.
fn close(consumer: Arc<StreamConsumer<Context>>) -> impl Future<Output = ()> {
    consumer.client().context().is_over();
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
    /// Dropping the client waits for the broker, which must not block a thread of the runtime.
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop(close(consumer));
        }
    }
}
