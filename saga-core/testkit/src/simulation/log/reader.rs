//! A member of a group.

use super::group::{MemberId, Moved};
use crate::simulation::{faults::Site, process::Process, world::lock};
use async_trait::async_trait;
use saga_core::{
    ids::SagaId,
    message::{IncomingRecord, header},
};
use saga_messaging::log::{Held, LogError, LogReader, Polled, TopicPartition};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// A client commits what is done this often.
const COMMIT_INTERVAL_MS: u64 = 300;

pub struct SimReader {
    process: Process,
    group: String,
    topic: String,
    membership: Arc<Membership>,
    /// Partitions that it believes to own, and the next offset of each.
    positions: BTreeMap<i32, i64>,
    /// Partitions of which nothing comes until then.
    slow: BTreeMap<i32, Instant>,
    /// When it finds out that it was thrown out.
    noticed_at: Option<Instant>,
    closed: bool,
}

/// What the client's own commits go by.
struct Membership {
    member: Mutex<MemberId>,
    stored: Mutex<BTreeMap<i32, i64>>,
    committing: Mutex<bool>,
}

impl SimReader {
    pub fn subscribe(process: &Process, group: &str, topic: &str) -> Self {
        let member = process.world.broker.join(group, topic, process);
        Self {
            process: process.clone(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            membership: Arc::new(Membership {
                member: Mutex::new(member),
                stored: Mutex::default(),
                committing: Mutex::default(),
            }),
            positions: BTreeMap::new(),
            slow: BTreeMap::new(),
            noticed_at: None,
            closed: false,
        }
    }

    fn member(&self) -> MemberId {
        *lock(&self.membership.member)
    }

    fn places(&self, partitions: &[i32]) -> Vec<TopicPartition> {
        partitions
            .iter()
            .map(|partition| TopicPartition {
                topic: self.topic.clone(),
                partition: *partition,
            })
            .collect()
    }

    /// How the partitions have moved since.
    fn take_move(&mut self) -> Option<Polled> {
        if let Some(lost) = self.notice_expulsion() {
            return Some(lost);
        }
        let world = Arc::clone(&self.process.world);
        let name = self.process.name().to_owned();
        match world.broker.next_move(&self.group, self.member())? {
            Moved::Assigned(partitions) => {
                let committed = world.broker.committed(&self.group);
                for partition in &partitions {
                    let position = committed.get(partition).copied().unwrap_or_default();
                    self.positions.insert(*partition, position);
                    if self.process.strikes(Site::FirstFetchSlow) {
                        let wait = world.milliseconds(500, 20_000, "first fetch", &name);
                        self.slow.insert(*partition, Instant::now() + wait);
                    }
                }
                world.note(
                    &name,
                    format_args!(
                        "owns {} {partitions:?} from {:?}",
                        self.topic, self.positions
                    ),
                );
                Some(Polled::Assigned(self.places(&partitions)))
            }
            Moved::Revoked(partitions) => {
                self.membership.commit(&self.process, &self.group);
                self.forget(&partitions);
                world
                    .broker
                    .release(&self.group, self.member(), &partitions);
                world.note(
                    &name,
                    format_args!("gives {} {partitions:?} back", self.topic),
                );
                Some(Polled::Revoked(self.places(&partitions)))
            }
            Moved::Lost(partitions) => {
                self.forget(&partitions);
                world.note(&name, format_args!("loses {} {partitions:?}", self.topic));
                Some(Polled::Revoked(self.places(&partitions)))
            }
        }
    }

    fn forget(&mut self, partitions: &[i32]) {
        let mut stored = lock(&self.membership.stored);
        for partition in partitions {
            self.positions.remove(partition);
            stored.remove(partition);
        }
    }

    /// A member that was thrown out goes on for a while, then joins again.
    fn notice_expulsion(&mut self) -> Option<Polled> {
        let world = Arc::clone(&self.process.world);
        if world.broker.is_member(&self.group, self.member()) {
            return None;
        }
        let noticed_at = *self.noticed_at.get_or_insert_with(|| {
            Instant::now() + world.milliseconds(0, 3_000, "notices", self.process.name())
        });
        if Instant::now() < noticed_at {
            return None;
        }
        self.noticed_at = None;
        let partitions: Vec<i32> = self.positions.keys().copied().collect();
        self.forget(&partitions);
        let member = world.broker.join(&self.group, &self.topic, &self.process);
        *lock(&self.membership.member) = member;
        world.note(
            self.process.name(),
            format_args!("notices that it lost {} {partitions:?}", self.topic),
        );
        (!partitions.is_empty()).then(|| Polled::Revoked(self.places(&partitions)))
    }

    /// Some of what has arrived, partition by partition in any order.
    fn fetch(&mut self, limit: usize) -> Vec<IncomingRecord> {
        self.slow.retain(|_, until| *until > Instant::now());
        let world = Arc::clone(&self.process.world);
        if world.broker.is_away() {
            return Vec::new();
        }
        let name = self.process.name();
        let mut partitions: Vec<i32> = self.positions.keys().copied().collect();
        if world.faults().is_active() {
            partitions.retain(|partition| !self.slow.contains_key(partition));
        }
        let mut records = Vec::new();
        let order = world.dice().order(partitions.len(), "fetch order", name);
        for index in order {
            let partition = partitions[index];
            let Some(position) = self.positions.get_mut(&partition) else {
                continue;
            };
            let arrived = (world.broker.end(&self.topic, partition) - *position).max(0) as u64;
            let room = limit.saturating_sub(records.len()) as u64;
            let mut count = arrived.min(room);
            if count > 1 && world.dice().percent(40, "short batch", name) {
                count = world.dice().between(1, count, "batch", name);
            }
            for _ in 0..count {
                records.extend(world.broker.read(&self.topic, partition, *position));
                *position += 1;
            }
        }
        records
    }

    fn hand_out(&self, records: &[IncomingRecord]) {
        let world = &self.process.world;
        let told: Vec<String> = records
            .iter()
            .map(|record| format!("{}/{}", record.partition, record.offset))
            .collect();
        let (name, topic) = (self.process.name(), &self.topic);
        world.note(name, format_args!("READ {topic} {}", told.join(" ")));
        let mut history = world.history();
        let sagas: BTreeSet<SagaId> = records.iter().filter_map(saga_of).collect();
        history.in_hand(name, sagas);
        for record in records {
            history.handed_out(&self.group, record, saga_of(record));
        }
    }

    /// Whether something may have to be told or read.
    fn wakes_at(&self) -> Instant {
        let fetches_at = self.slow.values().min().copied();
        let idle = Instant::now() + Duration::from_secs(5);
        [self.noticed_at, fetches_at]
            .into_iter()
            .flatten()
            .fold(idle, Instant::min)
    }
}

impl Membership {
    /// What is done, to the coordinator.
    fn commit(&self, process: &Process, group: &str) {
        if process.is_dead() || lock(&self.stored).is_empty() {
            return;
        }
        if process.strikes(Site::OffsetCommitLost) {
            return;
        }
        let stored = std::mem::take(&mut *lock(&self.stored));
        let member = *lock(&self.member);
        for (partition, next) in stored {
            let taken = process.world.broker.commit(group, member, partition, next);
            process.world.note(
                process.name(),
                format_args!("COMMITS {group} {partition} at {next}: {taken}"),
            );
        }
    }

    /// Soon, from the client's own thread.
    fn commit_soon(self: &Arc<Self>, process: &Process, group: &str) {
        if std::mem::replace(&mut *lock(&self.committing), true) {
            return;
        }
        let wait =
            process
                .world
                .milliseconds(0, COMMIT_INTERVAL_MS, "commit interval", process.name());
        let (this, process, group) = (Arc::clone(self), process.clone(), group.to_owned());
        process.clone().spawn(async move {
            sleep(wait).await;
            process.gate(Site::CrashBeforeOffsets).await;
            *lock(&this.committing) = false;
            this.commit(&process, &group);
            process.gate(Site::CrashAfterOffsets).await;
            // A commit that was lost is tried again.
            if !lock(&this.stored).is_empty() {
                this.commit_soon(&process, &group);
            }
        });
    }
}

#[async_trait]
impl LogReader for SimReader {
    async fn poll(&mut self, limit: usize) -> Result<Polled, LogError> {
        self.process.gate(Site::CrashInPoll).await;
        self.process.latency().await;
        loop {
            if let Some(moved) = self.take_move() {
                return Ok(moved);
            }
            let records = self.fetch(limit);
            if !records.is_empty() {
                self.hand_out(&records);
                return Ok(Polled::Records(records));
            }
            let world = Arc::clone(&self.process.world);
            let changed = world.broker.changed.notified();
            if timeout_at(self.wakes_at(), changed).await.is_ok() {
                self.process.latency().await;
            }
        }
    }

    fn done(&mut self, records: &[IncomingRecord]) -> Result<(), LogError> {
        let mut stored = lock(&self.membership.stored);
        for record in records {
            if self.positions.contains_key(&record.partition) {
                let next = stored.entry(record.partition).or_default();
                *next = (*next).max(record.offset + 1);
            }
        }
        drop(stored);
        self.process
            .world
            .history()
            .in_hand(self.process.name(), BTreeSet::new());
        self.membership.commit_soon(&self.process, &self.group);
        Ok(())
    }

    async fn hold(&mut self, time: Duration) -> Held {
        let until = Instant::now() + time;
        let world = Arc::clone(&self.process.world);
        loop {
            let expelled = !world.broker.is_member(&self.group, self.member());
            if expelled || world.broker.must_give_back(&self.group, self.member()) {
                if expelled {
                    self.noticed_at = Some(Instant::now());
                }
                // Nothing is owned any more, so there is nothing to report either.
                if !(expelled && self.positions.is_empty()) {
                    return Held::Lost;
                }
            }
            if timeout_at(until, world.broker.changed.notified())
                .await
                .is_err()
            {
                return Held::Elapsed;
            }
        }
    }

    async fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.membership.commit(&self.process, &self.group);
            self.process.world.broker.leave(&self.group, self.member());
        }
    }
}

impl Drop for SimReader {
    /// As the real one: it leaves, unless its process is dead and cannot.
    fn drop(&mut self) {
        if !self.closed && !self.process.is_dead() {
            self.membership.commit(&self.process, &self.group);
            self.process.world.broker.leave(&self.group, self.member());
        }
    }
}

fn saga_of(record: &IncomingRecord) -> Option<SagaId> {
    record.parsed(header::SAGA_ID).ok()
}
