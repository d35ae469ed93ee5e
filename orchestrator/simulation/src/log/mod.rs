//! The simulated log: topics, partitions, consumer groups, and the failures between them and a client.
//!
//! The log promises what Kafka promises and no more. Records of one produce call keep their order within a partition,
//! but not across partitions. A produce call that failed may still be written in part, or later. An expelled member
//! continues with its records until it notices, while the next owner already has its partitions. A group's committed
//! offsets may lag behind the work that is done, or be set back.

mod group;
mod offsets;
mod reader;
mod writer;

pub use offsets::SimOffsets;
pub use reader::SimReader;
pub use writer::SimWriter;

use super::{
    checker::history::Appended,
    random::digest,
    world::{World, lock},
};
use group::Group;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::{kafka::home_partition, log::Delivered};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The number of partitions of topics that are not configured.
const DEFAULT_PARTITIONS: usize = 2;

/// The simulated broker.
pub struct Broker {
    state: Mutex<State>,
    /// Notified when records were appended, partitions moved, or the broker is available again.
    pub changed: Notify,
}

struct State {
    seed: u64,
    topics: BTreeMap<String, Vec<Vec<Stored>>>,
    groups: BTreeMap<String, Group>,
    members: u64,
    away_until: Option<Instant>,
    last_append: Option<Instant>,
}

/// A record in a partition.
#[derive(Clone, Debug)]
pub struct Stored {
    pub record: OutgoingRecord,
    pub timestamp_ms: i64,
    /// True if a fault or the nemesis wrote the record, and not a process of the system.
    pub injected: bool,
}

/// The partition and timestamp for a record to append.
#[derive(Clone, Copy, Debug)]
pub struct Append {
    pub partition: i32,
    pub timestamp_ms: i64,
    pub injected: bool,
}

impl Broker {
    pub fn new(seed: u64) -> Self {
        let state = State {
            seed,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            members: 0,
            away_until: None,
            last_append: None,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn create(&self, topic: &str, partitions: usize) {
        self.state()
            .topics
            .insert(topic.to_owned(), vec![Vec::new(); partitions.max(1)]);
    }

    pub fn partition_count(&self, topic: &str) -> i32 {
        self.state().topic(topic).len() as i32
    }

    /// Returns the partition that this producer's partitioner chooses. Clients in different languages choose
    /// differently.
    pub fn partition_for(&self, producer: &str, record: &OutgoingRecord) -> i32 {
        let mut state = self.state();
        let seed = state.seed;
        let count = state.topic(&record.topic).len() as i32;
        if let Some(partition) = record.partition
            && (0..count).contains(&partition)
        {
            return partition;
        }
        let kind = digest(seed, [b"partitioner".as_slice(), producer.as_bytes()]) % 3;
        match kind {
            0 => home_partition(&String::from_utf8_lossy(&record.key), count),
            kind => {
                let count = u64::from(count.unsigned_abs().max(1));
                (digest(kind, [record.key.as_slice()]) % count) as i32
            }
        }
    }

    pub fn append(
        &self,
        world: &World,
        who: &str,
        record: &OutgoingRecord,
        at: Append,
    ) -> Delivered {
        let offset = {
            let mut state = self.state();
            state.last_append = Some(Instant::now());
            let log = &mut state.topic(&record.topic)[at.partition as usize];
            log.push(Stored {
                record: record.clone(),
                timestamp_ms: at.timestamp_ms,
                injected: at.injected,
            });
            log.len() as i64 - 1
        };
        let appended = Appended::of(record, at.partition, offset, at.injected, world.elapsed());
        world.note(who, format_args!("APPEND {appended}"));
        world.history().appended.push(appended);
        self.changed.notify_waiters();
        Delivered {
            partition: at.partition,
            offset,
        }
    }

    /// Returns a record as a reader receives it.
    pub fn read(&self, topic: &str, partition: i32, offset: i64) -> Option<IncomingRecord> {
        let mut state = self.state();
        let stored = state
            .topic(topic)
            .get(partition as usize)?
            .get(usize::try_from(offset).ok()?)?;
        Some(incoming(topic, partition, offset, stored))
    }

    pub fn stored(&self, topic: &str, partition: i32, offset: i64) -> Option<Stored> {
        let mut state = self.state();
        let log = state.topic(topic).get(partition as usize)?;
        log.get(usize::try_from(offset).ok()?).cloned()
    }

    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        let mut state = self.state();
        state
            .topic(topic)
            .get(partition as usize)
            .map_or(0, |log| log.len() as i64)
    }

    /// Ends the run: removes all groups.
    pub fn close(&self) {
        self.state().groups.clear();
    }

    pub fn go_away(&self, time: Duration) {
        self.state().away_until = Some(Instant::now() + time);
    }

    pub fn come_back(&self) {
        self.state().away_until = None;
        self.changed.notify_waiters();
    }

    pub fn is_unavailable(&self) -> bool {
        self.state()
            .away_until
            .is_some_and(|until| until > Instant::now())
    }

    /// Returns the time since the last append.
    pub fn quiet_for(&self) -> Duration {
        self.state()
            .last_append
            .map_or(Duration::MAX, |at| at.elapsed())
    }
}

impl State {
    fn topic(&mut self, name: &str) -> &mut Vec<Vec<Stored>> {
        self.topics
            .entry(name.to_owned())
            .or_insert_with(|| vec![Vec::new(); DEFAULT_PARTITIONS])
    }
}

fn incoming(topic: &str, partition: i32, offset: i64, stored: &Stored) -> IncomingRecord {
    let record = &stored.record;
    IncomingRecord {
        topic: topic.to_owned(),
        partition,
        offset,
        timestamp_ms: stored.timestamp_ms,
        key: (!record.key.is_empty()).then(|| record.key.clone()),
        headers: record.headers.clone(),
        payload: (!record.payload.is_empty()).then(|| record.payload.clone()),
    }
}
