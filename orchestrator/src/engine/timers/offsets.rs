//! The offsets of consumer groups. They are read only on request, and no more often than the requests need.

use crate::engine::db_clock::SharedClock;
use async_trait::async_trait;
use saga_core::ids::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// The offsets of one partition, as they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The first offset that the log still has.
    pub start: i64,
    /// The offset that the next record will get.
    pub end: i64,
    /// The next offset that the group will consume; 0 if it has committed none.
    pub committed: i64,
}

/// The offsets of a topic, as they were read for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    /// A time before the reading began: everything that the log contained at this time is included.
    pub at: Timestamp,
    /// A time after the reading ended: everything in it had happened by this time.
    pub by: Timestamp,
    pub partitions: BTreeMap<i32, PartitionOffsets>,
}

impl TopicOffsets {
    /// Returns the number of records that the group has not consumed yet.
    pub fn lag(&self) -> i64 {
        self.partitions
            .values()
            .map(|seen| (seen.end - seen.committed.max(seen.start)).max(0))
            .sum()
    }
}

/// The offsets that were read for one tick.
#[derive(Debug, Default)]
pub struct Offsets {
    /// The offsets of `saga.inputs`, for the orchestrator's own group.
    pub inputs: Option<TopicOffsets>,
    /// The offsets of the command topics, by participant.
    pub participants: HashMap<String, TopicOffsets>,
}

/// A source of offsets: Kafka, or a test.
#[async_trait]
pub trait OffsetSource: Send + Sync + 'static {
    /// Reads the offsets of a topic for a group. `None` if they cannot be read now.
    async fn read(&self, topic: &str, group: &str) -> Option<BTreeMap<i32, PartitionOffsets>>;
}

/// The time between two readings of the same topic and group, if no caller needs newer offsets.
pub const READ_INTERVAL: Duration = Duration::from_secs(1);
/// A reading is not repeated before this many times its own duration has passed. Readings that callers need at once
/// therefore take a twentieth of the time at most: the busier the machine and the broker are, the fewer readings are
/// made, down to one per [`READ_INTERVAL`].
const REST_FACTOR: u32 = 20;
/// The time after a failed reading before the next one. A failed reading takes as long as the client's timeout, and
/// other callers must not wait for that again.
const FAILED_INTERVAL: Duration = Duration::from_secs(5);

type Key = (String, String);

struct Reading {
    /// The time at which the reading ended.
    at: Instant,
    took: Duration,
    seen: Option<TopicOffsets>,
}

impl Reading {
    /// Returns whether the reading serves a caller that needs one younger than `age`.
    fn serves(&self, age: Duration) -> bool {
        let interval = if self.seen.is_some() {
            age.max(self.took * REST_FACTOR).min(READ_INTERVAL)
        } else {
            FAILED_INTERVAL
        };
        self.at.elapsed() < interval
    }
}

/// Reads offsets, and shares the readings among the timers and the API.
pub struct OffsetReader {
    source: Box<dyn OffsetSource>,
    clock: Arc<SharedClock>,
    readings: Mutex<HashMap<Key, Arc<Mutex<Option<Reading>>>>>,
}

impl OffsetReader {
    pub fn new(source: impl OffsetSource, clock: Arc<SharedClock>) -> Self {
        Self {
            source: Box::new(source),
            clock,
            readings: Mutex::default(),
        }
    }

    /// Returns offsets that were read within the last second. `None` while offsets cannot be read.
    pub async fn seen(&self, topic: &str, group: &str) -> Option<TopicOffsets> {
        self.seen_within(topic, group, READ_INTERVAL).await
    }

    /// Returns offsets that were read within the last `age`, which is limited to a second. They may be a little older
    /// if a reading takes long.
    pub async fn seen_within(
        &self,
        topic: &str,
        group: &str,
        age: Duration,
    ) -> Option<TopicOffsets> {
        let cell = {
            let mut readings = self.readings.lock().await;
            Arc::clone(
                readings
                    .entry((topic.to_owned(), group.to_owned()))
                    .or_default(),
            )
        };
        // The lock is held during the reading, so that callers that ask meanwhile get the same answer.
        let mut reading = cell.lock().await;
        if let Some(reading) = reading.as_ref()
            && reading.serves(age)
        {
            return reading.seen.clone();
        }
        let began = Instant::now();
        let seen = self.read(topic, group).await;
        *reading = Some(Reading {
            at: Instant::now(),
            took: began.elapsed(),
            seen: seen.clone(),
        });
        seen
    }

    async fn read(&self, topic: &str, group: &str) -> Option<TopicOffsets> {
        let at = self.clock.now()?;
        let partitions = self.source.read(topic, group).await?;
        let by = self.clock.now()?;
        Some(TopicOffsets { at, by, partitions })
    }
}
