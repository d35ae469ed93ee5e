//! The producer.

use super::{
    KafkaConfig, QUERY_TIMEOUT, blocking,
    context::{Admission, Context},
    delivery::{Batch, Ticket},
    error::{Refusal, classify},
    producer::WatchedProducer,
    record,
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
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Largest record. Twice a broker's default of 1 MiB, so that the dead letter of a record of that size still fits into a
/// topic that allows it; the topic's own limit is what bounds ordinary records.
pub const RECORD_LIMIT_BYTES: usize = 2 * 1024 * 1024;
/// A record without an acknowledgment for this long counts as not sent: longer than a broker's restart, shorter than a
/// consumer may go without polling.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// Records waiting for the network, all topics together: some hundred batches; more is backpressure.
const QUEUE_RECORDS: &str = "50000";
const QUEUE_KIB: &str = "131072";
/// Between two tries to enqueue into a full queue: about one round trip.
const QUEUE_RETRY: Duration = Duration::from_millis(5);
/// A topic that the broker does not know after this long is refused.
const TOPIC_GRACE_MS: &str = "10000";
/// Partition counts only ever grow, and seldom: a count that seems too small is asked for again this often.
const COUNT_REFRESH: Duration = Duration::from_secs(10);
/// What is still under way at the end of a process gets this long.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Appends records: idempotent, acknowledged by all in-sync replicas. Clones share one client.
#[derive(Clone)]
pub struct KafkaWriter {
    producer: Arc<WatchedProducer>,
    admission: Admission,
    counts: Arc<Mutex<BTreeMap<String, Count>>>,
    /// Partitions that were asked for and do not exist, to say so once.
    strays: Arc<Mutex<BTreeSet<(String, i32)>>>,
}

#[derive(Clone, Copy)]
struct Count {
    partitions: i32,
    asked_at: Instant,
}

impl KafkaWriter {
    pub fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.client()?;
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Batches are made by the application, which knows when one is complete.
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", RECORD_LIMIT_BYTES.to_string())
            .set(
                "message.timeout.ms",
                DELIVERY_TIMEOUT.as_millis().to_string(),
            )
            .set("queue.buffering.max.messages", QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("topic.metadata.propagation.max.ms", TOPIC_GRACE_MS);
        config.tune(&mut client);
        let context = Context::default();
        let admission = context.admission().clone();
        let producer = WatchedProducer::start(&client, context)
            .map_err(|error| classify(error, "the brokers"))?;
        Ok(Self {
            producer: Arc::new(producer),
            admission,
            counts: Arc::default(),
            strays: Arc::default(),
        })
    }

    /// How many partitions `topic` has; asked once.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, LogError> {
        match self.cached_count(topic) {
            Some(count) => Ok(count.partitions),
            None => self.refresh_partition_count(topic).await,
        }
    }

    /// Asks the broker again.
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

    /// A cheap question to the cluster, for readiness.
    pub async fn health(&self) -> Result<(), LogError> {
        let (producer, admission) = (self.producer.clone(), self.admission.clone());
        blocking(move || super::admin::ask(producer.client(), &admission)).await
    }

    /// Waits until everything enqueued is acknowledged or given up.
    pub async fn flush(&self) -> Result<(), LogError> {
        let producer = self.producer.clone();
        blocking(move || {
            producer
                .flush(FLUSH_TIMEOUT)
                .map_err(|error| classify(error, "the brokers"))
        })
        .await
    }

    /// The partition to ask for: the record's own if it exists, else its key chooses.
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
                "there is no such partition, such records go by their key"
            );
        }
        Ok(None)
    }

    async fn enqueue(
        &self,
        outgoing: &OutgoingRecord,
        ticket: Box<Ticket>,
    ) -> Result<(), LogError> {
        let mut record =
            BaseRecord::<[u8], [u8], Box<Ticket>>::with_opaque_to(&outgoing.topic, ticket)
                .headers(record::headers(&outgoing.headers));
        record.partition = self.explicit_partition(outgoing).await?;
        // An empty key or value stands for none: neither is valid here, and dead letters of tombstones stay tombstones.
        record.key = (!outgoing.key.is_empty()).then_some(&*outgoing.key);
        record.payload = (!outgoing.payload.is_empty()).then_some(&*outgoing.payload);
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    record = back;
                    sleep(QUEUE_RETRY).await;
                }
                Err((error, _)) => return Err(self.refusal(error, outgoing)),
            }
        }
    }

    fn refusal(&self, error: KafkaError, record: &OutgoingRecord) -> LogError {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            return Refusal::TooLarge {
                topic: record.topic.clone(),
                size: record.payload.len(),
                limit: RECORD_LIMIT_BYTES,
            }
            .into();
        }
        match (classify(error, &record.topic), self.admission.denied()) {
            // A login that worked at the start is put right while the service waits.
            (LogError::Unavailable(_), Some(reason)) => {
                LogError::Unavailable(Box::new(Refusal::NotAdmitted(reason)))
            }
            (other, _) => other,
        }
    }
}

#[async_trait]
impl LogWriter for KafkaWriter {
    async fn publish(&self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError> {
        let begun = Instant::now();
        CrashPoint::LogBeforeProduce.pass();
        let batch = Batch::of(records.len());
        let mut failed = None;
        for (place, record) in records.iter().enumerate() {
            if let Err(error) = self.enqueue(record, Box::new(batch.ticket(place))).await {
                failed = Some(error);
                break;
            }
        }
        CrashPoint::LogBeforeAck.pass();
        let told = batch.all().await;
        if let (None, Some((place, error))) = (&failed, told.failed) {
            failed = Some(self.refusal(error, &records[place]));
        }
        histogram!("saga_publish_seconds").record(begun.elapsed().as_secs_f64());
        match failed {
            None => {
                counter!("saga_records_produced_total").increment(records.len() as u64);
                Ok(told.delivered)
            }
            Some(error) => {
                counter!("saga_publish_failures_total").increment(1);
                Err(error)
            }
        }
    }
}
