//! Writes records with an idempotent producer.

use super::{
    KafkaConfig, QUERY_TIMEOUT,
    admission::Admission,
    alone::Alone,
    blocking,
    context::Context,
    delivery::{Batch, Ticket},
    error::{Refusal, classify},
    producer::WatchedProducer,
    reader::STATISTICS_INTERVAL_MS,
    record::{self, RECORD_LIMIT_BYTES},
};
use crate::{
    crash_point::CrashPoint,
    log::{Delivered, LogError, LogWriter},
};
use async_trait::async_trait;
use metrics::{counter, histogram};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer},
};
use saga_core::message::OutgoingRecord;
use saga_postgres::clock::{Clock, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tracing::warn;

/// A record without an acknowledgment for this long counts as not sent. It is longer than a broker's restart, and
/// shorter than a consumer may go without polling.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Records that wait for the network, for all topics together: some hundred batches; more is backpressure.
const QUEUE_RECORDS: &str = "50000";
const QUEUE_KIB: &str = "131072";
/// Time between two attempts to enqueue into a full queue: about one round trip.
const QUEUE_RETRY: Duration = Duration::from_millis(5);
/// A topic that the broker does not know after this long is refused.
const TOPIC_GRACE_MS: &str = "10000";
/// Time between two queries of a partition count that seems too small: counts only ever grow, and seldom.
const COUNT_REFRESH: Duration = Duration::from_secs(10);
/// Longest time for the records that are in flight when a process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes records: idempotent, and acknowledged by all in-sync replicas. Clones share one client.
#[derive(Clone)]
pub struct KafkaWriter {
    producer: Arc<WatchedProducer>,
    alone: Alone,
    admission: Admission,
    counts: Arc<Mutex<BTreeMap<String, Count>>>,
    /// Partitions that records named and that do not exist, so that each is logged once.
    strays: Arc<Mutex<BTreeSet<(String, i32)>>>,
    clock: &'static Clock,
}

/// The first record of a batch that was not sent.
struct Unsent {
    place: usize,
    /// The broker refused the batch that the record was sent in; the record may fit alone.
    batch_too_large: bool,
    error: LogError,
}

#[derive(Clone, Copy)]
struct Count {
    partitions: i32,
    asked_at: Instant,
}

impl KafkaWriter {
    pub fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        Self::connect_with(config, Clock::of_process())
    }

    /// Connects like [`connect`](Self::connect), with record times from `clock`.
    pub fn connect_with(config: &KafkaConfig, clock: &'static Clock) -> Result<Self, LogError> {
        let mut client = config.client()?;
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The application makes batches itself, and knows when a batch is complete.
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", RECORD_LIMIT_BYTES.to_string())
            .set(
                "message.timeout.ms",
                DELIVERY_TIMEOUT.as_millis().to_string(),
            )
            .set("queue.buffering.max.messages", QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("topic.metadata.propagation.max.ms", TOPIC_GRACE_MS)
            // The statistics report the broker's throttling.
            .set("statistics.interval.ms", STATISTICS_INTERVAL_MS);
        config.tune(&mut client);
        let context = Context::default();
        let admission = context.admission().clone();
        let producer = WatchedProducer::start(&client, context)
            .map_err(|error| classify(error, "the brokers"))?;
        Ok(Self {
            producer: Arc::new(producer),
            alone: Alone::new(client),
            admission,
            counts: Arc::default(),
            strays: Arc::default(),
            clock,
        })
    }

    /// Returns the number of partitions of `topic`; it is queried once.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, LogError> {
        match self.cached_count(topic) {
            Some(count) => Ok(count.partitions),
            None => self.refresh_partition_count(topic).await,
        }
    }

    /// Queries the number of partitions again.
    pub async fn refresh_partition_count(&self, topic: &str) -> Result<i32, LogError> {
        let (producer, name) = (self.producer.clone(), topic.to_owned());
        let partitions = blocking(move || {
            let metadata = producer
                .client()
                .fetch_metadata(Some(&name), QUERY_TIMEOUT)
                .map_err(|error| classify(error, &name))?;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            match found.map_or(0, |found| found.partitions().len() as i32) {
                0 => Err(Refusal::NoTopic(name).into()),
                count => Ok(count),
            }
        })
        .await?;
        let count = Count {
            partitions,
            asked_at: Instant::now(),
        };
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(topic.to_owned(), count);
        Ok(partitions)
    }

    fn cached_count(&self, topic: &str) -> Option<Count> {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(topic)
            .copied()
    }

    /// Sends a cheap query to the cluster, for readiness.
    pub async fn health(&self) -> Result<(), LogError> {
        let (producer, admission) = (self.producer.clone(), self.admission.clone());
        blocking(move || super::admin::ask(producer.client(), &admission)).await
    }

    /// Waits until every enqueued record is acknowledged or given up.
    pub async fn flush(&self) -> Result<(), LogError> {
        let producers = [Some(self.producer.clone()), self.alone.started()];
        blocking(move || {
            producers.iter().flatten().try_for_each(|producer| {
                producer
                    .flush(FLUSH_TIMEOUT)
                    .map_err(|error| classify(error, "the brokers"))
            })
        })
        .await
    }

    /// Returns the record's own partition if it exists, else `None`: then the key chooses the partition.
    async fn explicit_partition(&self, record: &OutgoingRecord) -> Result<Option<i32>, LogError> {
        let Some(partition) = record.partition else {
            return Ok(None);
        };
        let topic = &record.topic;
        let mut count = self.partition_count(topic).await?;
        let stale = self
            .cached_count(topic)
            .is_none_or(|cached| cached.asked_at.elapsed() > COUNT_REFRESH);
        if partition >= count && stale {
            count = self.refresh_partition_count(topic).await?;
        }
        if (0..count).contains(&partition) {
            return Ok(Some(partition));
        }
        let first = self
            .strays
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((topic.clone(), partition));
        if first {
            warn!(
                messaging.destination.name = topic,
                messaging.destination.partition.id = partition,
                messaging.kafka.partitions = count,
                "the partition does not exist, such records are sent by their key"
            );
        }
        Ok(None)
    }

    /// Sends the records that have no delivery, waits for all of them, and sets their deliveries.
    async fn send(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
        source: Source,
    ) -> Result<(), Unsent> {
        let batch = Batch::of(records.len());
        let mut unsent = None;
        for (place, record) in records.iter().enumerate() {
            if delivered[place].is_some() {
                continue;
            }
            let ticket = Box::new(batch.ticket(place));
            if let Err(error) = self.enqueue(record, source, ticket).await {
                unsent = Some(Unsent {
                    place,
                    batch_too_large: false,
                    error,
                });
                break;
            }
        }
        CrashPoint::LogBeforeAck.pass();
        let results = batch.all().await;
        for (known, reported) in delivered.iter_mut().zip(results.delivered) {
            *known = known.or(reported);
        }
        let reported = results.failed.map(|(place, error)| Unsent {
            place,
            batch_too_large: error.rdkafka_error_code()
                == Some(RDKafkaErrorCode::MessageSizeTooLarge),
            error: self.refusal(error, &records[place], source),
        });
        unsent.or(reported).map_or(Ok(()), Err)
    }

    /// Sends the records that have no delivery. The broker refuses a batch that is larger than its topic allows,
    /// although each of its records may fit: then the records are sent one by one.
    async fn send_all(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
        source: Source,
    ) -> Result<(), LogError> {
        loop {
            let alone = self.alone.topics();
            let Err(unsent) = self.send(records, delivered, source).await else {
                return Ok(());
            };
            let topic = &records[unsent.place].topic;
            if !unsent.batch_too_large || alone.contains(topic) {
                return Err(unsent.error);
            }
            self.alone.learn(topic);
        }
    }

    async fn enqueue(
        &self,
        outgoing: &OutgoingRecord,
        source: Source,
        ticket: Box<Ticket>,
    ) -> Result<(), LogError> {
        let producer = match self.alone.producer(&outgoing.topic) {
            Some(alone) => alone.map_err(|error| self.refusal(error, outgoing, source))?,
            None => Arc::clone(&self.producer),
        };
        let mut record =
            BaseRecord::<[u8], [u8], Box<Ticket>>::with_opaque_to(&outgoing.topic, ticket)
                .headers(record::headers(&outgoing.headers));
        record.partition = self.explicit_partition(outgoing).await?;
        record.timestamp = Some(self.clock.time_of(source).timestamp_millis());
        // An empty key or value is sent as none. Neither is valid here, and dead letters of tombstones stay tombstones.
        record.key = (!outgoing.key.is_empty()).then_some(&*outgoing.key);
        record.payload = (!outgoing.payload.is_empty()).then_some(&*outgoing.payload);
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    sleep(QUEUE_RETRY).await;
                }
                Err((error, _)) => return Err(self.refusal(error, outgoing, source)),
            }
        }
    }

    fn refusal(&self, error: KafkaError, record: &OutgoingRecord, source: Source) -> LogError {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            return Refusal::TooLarge {
                topic: record.topic.clone(),
                size: record.payload.len(),
                limit: RECORD_LIMIT_BYTES,
            }
            .into();
        }
        // For a batch of several records, the client library only reports that they are invalid. These records have
        // keys, and are compressed or not like all others, so it is their time that the brokers refuse.
        if let Some(
            RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidDifferentRecord,
        ) = error.rdkafka_error_code()
        {
            return Refusal::Time(self.clock.refused(source, &record.topic)).into();
        }
        match (classify(error, &record.topic), self.admission.denied()) {
            // The login worked at the start, so it may be corrected while the service waits.
            (LogError::Unavailable(_), Some(reason)) => {
                LogError::Unavailable(Box::new(Refusal::NotAdmitted(reason)))
            }
            (other, _) => other,
        }
    }
}

#[async_trait]
impl LogWriter for KafkaWriter {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        let begun = Instant::now();
        let before = deliveries(delivered);
        CrashPoint::LogBeforeProduce.pass();
        let source = self.clock.source();
        let ended = self.send_all(records, delivered, source).await;
        histogram!("saga_publish_seconds").record(begun.elapsed().as_secs_f64());
        let produced = deliveries(delivered) - before;
        counter!("saga_records_produced_total").increment(produced as u64);
        match &ended {
            Ok(()) if produced > 0 => self.clock.taken(),
            Ok(()) => {}
            Err(_) => counter!("saga_publish_failures_total").increment(1),
        }
        ended
    }
}

fn deliveries(delivered: &[Option<Delivered>]) -> usize {
    delivered.iter().flatten().count()
}
