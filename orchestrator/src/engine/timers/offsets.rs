//! How far the groups are, read at most once a second and only when somebody asks.

use crate::engine::db_clock::DbClock;
use async_trait::async_trait;
use saga_core::ids::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// One partition as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionSeen {
    /// First offset that the log still has.
    pub start: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// The next offset that the group reads; 0 if it has committed none.
    pub committed: i64,
}

/// A topic as it was seen by a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSeen {
    /// Before the reading began, so everything that stood there at this instant is in it.
    pub at: Timestamp,
    pub partitions: BTreeMap<i32, PartitionSeen>,
}

impl TopicSeen {
    /// Records that the group has not consumed yet.
    pub fn lag(&self) -> i64 {
        self.partitions
            .values()
            .map(|seen| (seen.end - seen.committed.max(seen.start)).max(0))
            .sum()
    }
}

/// What was seen of the log for this tick.
#[derive(Debug, Default)]
pub struct Seen {
    /// `saga.inputs`, by the orchestrator's own group.
    pub inputs: Option<TopicSeen>,
    /// Command topics by participant.
    pub participants: HashMap<String, TopicSeen>,
}

/// Where offsets come from: Kafka, or a test.
#[async_trait]
pub trait OffsetSource: Send + Sync + 'static {
    /// `None` if they cannot be read now.
    async fn read(&self, topic: &str, group: &str) -> Option<BTreeMap<i32, PartitionSeen>>;
}

/// Between two readings of the same topic and group.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// After a reading that failed, which takes as long as the client's patience: nobody else should wait for it again.
const FAILED_INTERVAL: Duration = Duration::from_secs(5);

type Key = (String, String);
type Reading = (Instant, Option<TopicSeen>);

/// Shares readings among the timers and the API.
pub struct Offsets {
    source: Box<dyn OffsetSource>,
    clock: Arc<DbClock>,
    readings: Mutex<HashMap<Key, Arc<Mutex<Option<Reading>>>>>,
}

impl Offsets {
    pub fn new(source: impl OffsetSource, clock: Arc<DbClock>) -> Self {
        Self {
            source: Box::new(source),
            clock,
            readings: Mutex::default(),
        }
    }

    /// What was seen within the last second. `None` while offsets cannot be read.
    pub async fn seen(&self, topic: &str, group: &str) -> Option<TopicSeen> {
        let cell = {
            let mut readings = self.readings.lock().await;
            Arc::clone(
                readings
                    .entry((topic.to_owned(), group.to_owned()))
                    .or_default(),
            )
        };
        // Held across the reading: whoever asks meanwhile gets the same answer.
        let mut reading = cell.lock().await;
        if let Some((at, seen)) = reading.as_ref()
            && at.elapsed() < interval(seen.as_ref())
        {
            return seen.clone();
        }
        let at = self.clock.now();
        let seen = match at {
            Some(at) => self
                .source
                .read(topic, group)
                .await
                .map(|partitions| TopicSeen { at, partitions }),
            None => None,
        };
        *reading = Some((Instant::now(), seen.clone()));
        seen
    }
}

fn interval(seen: Option<&TopicSeen>) -> Duration {
    if seen.is_some() {
        READ_INTERVAL
    } else {
        FAILED_INTERVAL
    }
}
