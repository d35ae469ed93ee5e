//! Tracks the pick-up of commands: the locations of the commands in flight, and the offsets that were read for the home
//! partitions that this process owns.

use super::{
    offsets::Offsets,
    owned::{EndOffsets, OwnedPartition},
    pick_up_status::pick_up_status,
    queued_index::{QueuedCommand, QueuedCommandIndex},
    saga_timers::{ReadBarrier, SagaTimers},
};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{PickUpStatus, TimerKind},
    mutant::{self, Mutant},
};
use std::collections::BTreeMap;

/// Tells which commands their participants have picked up. The entries themselves are the queue's.
#[derive(Debug, Default)]
pub(super) struct PickUpTracker {
    owned: BTreeMap<i32, OwnedPartition>,
    /// Commands that their rows have recorded as queued.
    queued: QueuedCommandIndex,
    /// Commands in flight that were not seen picked up yet.
    unanswered: QueuedCommandIndex,
}

impl PickUpTracker {
    pub(super) fn assign(&mut self, partition: i32) {
        self.owned.insert(partition, OwnedPartition::default());
    }

    pub(super) fn revoke(&mut self, partition: i32) {
        self.owned.remove(&partition);
    }

    pub(super) fn owned(&self) -> Vec<i32> {
        self.owned.keys().copied().collect()
    }

    pub(super) fn owns(&self, partition: i32) -> bool {
        self.owned.contains_key(&partition)
    }

    /// Keeps the timers of an owned partition from firing before `until`.
    pub(super) fn hold(&mut self, partition: i32, until: Timestamp) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.held_until = Some(until);
        }
    }

    /// Returns the time before which no timer of a partition fires.
    pub(super) fn held_until(&self, partition: i32) -> Option<Timestamp> {
        self.owned.get(&partition)?.held_until
    }

    /// Records that everything below `next_offset` of an owned partition has been handled.
    pub(super) fn read_to(&mut self, partition: i32, next_offset: i64) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.read_to = owned.read_to.max(next_offset);
        }
    }

    /// Returns the end offsets that stand in for the locations of commands that a previous owner sent.
    pub(super) fn ends(&self, home_partition: i32, participant: &str) -> Option<&EndOffsets> {
        self.owned.get(&home_partition)?.ends.get(participant)
    }

    pub(super) fn queued(&self) -> &QueuedCommandIndex {
        &self.queued
    }

    pub(super) fn unanswered(&self) -> &QueuedCommandIndex {
        &self.unanswered
    }

    /// Adds an entry's commands to the indexes.
    pub(super) fn list(&mut self, id: SagaId, entry: &SagaTimers) {
        for (participant, key) in entry.queued_keys() {
            self.queued.add(participant, key, id);
        }
        for (participant, key) in entry.unseen_keys() {
            self.unanswered.add(participant, key, id);
        }
    }

    /// Removes an entry's commands from the indexes. This must happen before anything changes that the commands' keys
    /// depend on.
    pub(super) fn unlist(&mut self, id: SagaId, entry: &SagaTimers) {
        for (participant, key) in entry.queued_keys() {
            self.queued.remove(participant, key, id);
        }
        for (participant, key) in entry.unseen_keys() {
            self.unanswered.remove(participant, key, id);
        }
    }

    /// Keeps the first reading of each command topic after the assignment, and the offset that our own group has
    /// committed.
    pub(super) fn observe(&mut self, seen: &Offsets) {
        for (partition, owned) in &mut self.owned {
            if let Some(inputs) = &seen.inputs
                && let Some(now) = inputs.partitions.get(partition)
            {
                owned.read_to = owned.read_to.max(now.committed);
            }
            for (participant, topic) in &seen.participants {
                if !owned.ends.contains_key(participant) {
                    owned
                        .ends
                        .insert(participant.clone(), EndOffsets::of(topic));
                }
            }
        }
    }

    /// Returns the sagas with a command that is recorded as queued and that `seen` may show to be queued no longer. A
    /// saga is returned once for each such command.
    pub(super) fn passed<'a>(&'a self, seen: &'a Offsets) -> impl Iterator<Item = SagaId> + 'a {
        seen.participants
            .iter()
            .flat_map(move |(participant, topic)| {
                let ends_of = move |home: i32| {
                    let ends = self.ends(home, participant)?;
                    Some((&ends.partitions, ends.at))
                };
                self.queued.passed(participant, topic, ends_of)
            })
    }

    /// Returns whether one of an entry's queued commands has been picked up or is gone according to `seen`, or needs
    /// newer end offsets.
    pub(super) fn has_moved_on(&self, entry: &SagaTimers, seen: &Offsets) -> bool {
        entry.watched.iter().any(|watched| {
            let moved = match self.pick_up_status(entry, watched, seen) {
                Some(verdict) => has_moved_on(verdict),
                None => !self.is_covered(entry, watched),
            };
            moved
                && entry
                    .outstanding_until(TimerKind::Timeout, Some(&watched.part))
                    .is_none()
        })
    }

    /// Returns the pick-up status of a command. `None` if only newer offsets can decide it.
    pub(super) fn pick_up_status(
        &self,
        entry: &SagaTimers,
        command: &QueuedCommand,
        seen: &Offsets,
    ) -> Option<PickUpStatus> {
        let topic = seen.participants.get(&command.participant);
        if topic.is_some() && !self.is_covered(entry, command) {
            return None;
        }
        let none = BTreeMap::new();
        let ends = self
            .ends(entry.home_partition, &command.participant)
            .map_or(&none, |ends| &ends.partitions);
        pick_up_status(entry.place(&command.part), ends, topic)
    }

    /// Returns whether the command's location is known, or the command was sent before the end offsets were read. Also
    /// true if either of these two times is unknown.
    fn is_covered(&self, entry: &SagaTimers, command: &QueuedCommand) -> bool {
        entry.place(&command.part).is_some()
            || self
                .ends(entry.home_partition, &command.participant)
                .zip(command.sent_at)
                .is_none_or(|(ends, sent_at)| sent_at < ends.at)
    }

    /// Replaces the end offsets by newer ones if the command was sent after they were read. Another process may send
    /// such a command: one that has lost the partition and does not know it yet, or one that a reply was misdirected
    /// to. The newer end offsets then stand in for the command's location.
    pub(super) fn cover(&mut self, entry: &SagaTimers, timer: &ArmedTimer, seen: &Offsets) {
        let Some(command) = QueuedCommand::of(timer) else {
            return;
        };
        if self.is_covered(entry, &command) {
            return;
        }
        if let Some(topic) = seen.participants.get(&command.participant)
            && command.sent_at.is_some_and(|sent_at| sent_at < topic.at)
            && let Some(owned) = self.owned.get_mut(&entry.home_partition)
        {
            owned
                .ends
                .insert(command.participant, EndOffsets::of(topic));
        }
    }

    /// Returns whether this process has handled the home partition up to the end that was read once the timer had come
    /// due. The reply may be among these records.
    pub(super) fn has_read_what_was_there(
        &self,
        entry: &mut SagaTimers,
        due_at: Timestamp,
        seen: &Offsets,
    ) -> bool {
        if mutant::on(Mutant::FireTimersUnread) {
            return true;
        }
        let Some(owned) = self.owned.get(&entry.home_partition) else {
            return false;
        };
        let fits = entry
            .read_barrier
            .is_some_and(|read_barrier| read_barrier.seen_at >= due_at);
        if !fits {
            entry.read_barrier = seen
                .inputs
                .as_ref()
                .filter(|inputs| inputs.at >= due_at)
                .and_then(|inputs| {
                    let now = inputs.partitions.get(&entry.home_partition)?;
                    Some(ReadBarrier {
                        seen_at: inputs.at,
                        end: now.end,
                        read_to: owned.read_to,
                    })
                });
        }
        entry.read_barrier.is_some_and(|read_barrier| {
            owned.read_to >= read_barrier.end
                || owned.has_nothing_left(read_barrier, entry.home_partition, seen)
        })
    }
}

/// Returns whether a queued command with this status is queued no longer.
pub(super) fn has_moved_on(verdict: PickUpStatus) -> bool {
    match verdict {
        PickUpStatus::PickedUp | PickUpStatus::Unanswered | PickUpStatus::Gone => true,
        PickUpStatus::Queued | PickUpStatus::Unknown => false,
    }
}
