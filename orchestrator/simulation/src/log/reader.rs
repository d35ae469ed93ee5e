//! A consumer: a member of a simulated group.

use super::group::{MemberId, Moved};
use crate::{faults::Site, process::Process, world::lock};
use async_trait::async_trait;
use saga_core::{
    ids::SagaId,
    message::{IncomingRecord, header},
};
use saga_messaging::log::{LogError, LogReader, PauseEnded, PollResult, TopicPartition};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// The longest time until a client commits its stored offsets.
const COMMIT_INTERVAL_MS: u64 = 300;

pub struct SimReader {
    process: Process,
    group: String,
    topic: String,
    membership: Arc<Membership>,
    /// Partitions that the member believes it owns, with the next offset of each.
    positions: BTreeMap<i32, i64>,
    /// Partitions that return no records until the given time.
    slow: BTreeMap<i32, Instant>,
    /// The time when the member notices that it was expelled.
    noticed_at: Option<Instant>,
    closed: bool,
}

/// The state that the client's own commits use.
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

    /// Returns the next change of the assignment, if there is one.
    fn take_move(&mut self) -> Option<PollResult> {
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
                Some(PollResult::Assigned(self.places(&partitions)))
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
                Some(PollResult::Revoked(self.places(&partitions)))
            }
            Moved::Lost(partitions) => {
                self.forget(&partitions);
                world.note(&name, format_args!("loses {} {partitions:?}", self.topic));
                Some(PollResult::Revoked(self.places(&partitions)))
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

    /// Handles an expulsion. An expelled member continues for a while, and then joins again.
    fn notice_expulsion(&mut self) -> Option<PollResult> {
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
        (!partitions.is_empty()).then(|| PollResult::Revoked(self.places(&partitions)))
    }

    /// Returns some of the available records, with the partitions in random order.
    fn fetch(&mut self, limit: usize) -> Vec<IncomingRecord> {
        self.slow.retain(|_, until| *until > Instant::now());
        let world = Arc::clone(&self.process.world);
        if world.broker.is_unavailable() {
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

    /// Returns the time at which the member may have something to read or to notice.
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
    /// Commits the stored offsets to the coordinator.
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

    /// Commits after a random wait, in a task of its own, as the client's own thread does.
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
            // A commit that was lost is retried.
            if !lock(&this.stored).is_empty() {
                this.commit_soon(&process, &group);
            }
        });
    }
}

#[async_trait]
impl LogReader for SimReader {
    async fn poll(&mut self, limit: usize) -> Result<PollResult, LogError> {
        self.process.gate(Site::CrashInPoll).await;
        self.process.latency().await;
        loop {
            if let Some(moved) = self.take_move() {
                return Ok(moved);
            }
            let records = self.fetch(limit);
            if !records.is_empty() {
                self.hand_out(&records);
                return Ok(PollResult::Records(records));
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

    async fn hold(&mut self, time: Duration) -> PauseEnded {
        let until = Instant::now() + time;
        let world = Arc::clone(&self.process.world);
        loop {
            let expelled = !world.broker.is_member(&self.group, self.member());
            if expelled || world.broker.must_give_back(&self.group, self.member()) {
                if expelled {
                    self.noticed_at = Some(Instant::now());
                }
                // If the member was expelled and owns nothing any more, there is nothing to report.
                if !(expelled && self.positions.is_empty()) {
                    return PauseEnded::Revoked;
                }
            }
            if timeout_at(until, world.broker.changed.notified())
                .await
                .is_err()
            {
                return PauseEnded::Elapsed;
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
    /// Leaves the group as the real reader does, unless the process is dead.
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
