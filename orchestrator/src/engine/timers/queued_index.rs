//! An index of queued commands by topic offset. Finding the consumed commands costs as much as there are of them, not
//! as much as there are queued ones: a participant that is down for a day has a million queued commands, and they are
//! checked every second.

use super::{offsets::TopicOffsets, pick_up_status::has_passed};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{CommandRef, PickUpStatus},
    mutant::{self, Mutant},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A command, and the participant whose offsets show whether it was picked up. Commands that are known to be queued are
/// stored in this form in their saga's row, beside the state: renaming a field is a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedCommand {
    pub part: CommandRef,
    pub participant: String,
    pub sent_at: Option<Timestamp>,
}

impl QueuedCommand {
    /// Returns the command of a timer. `None` if offsets do not matter for the timer.
    pub fn of(timer: &ArmedTimer) -> Option<Self> {
        Some(Self {
            part: timer.part.clone()?,
            participant: timer.participant.clone()?,
            sent_at: timer.sent_at,
        })
    }

    /// Returns the command of a timer. `None` unless the saga has recorded the command as queued. Such a command is
    /// advanced by its consumption, not by its timer.
    pub fn queued(timer: &ArmedTimer) -> Option<Self> {
        match timer.known? {
            PickUpStatus::Queued => Self::of(timer),
            PickUpStatus::PickedUp
            | PickUpStatus::Unanswered
            | PickUpStatus::Gone
            | PickUpStatus::Unknown => None,
        }
    }
}

/// The key under which the index finds a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKey {
    /// The command's location in its participant's topic.
    At { partition: i32, offset: i64 },
    /// A command that a previous owner sent. It is below the end offsets that were read for its home partition, if it
    /// was sent before they were read.
    Before {
        home_partition: i32,
        sent_at: Option<Timestamp>,
    },
}

/// The end offsets of a topic that stand in for the locations of its commands, and when they were read.
pub type EndsSeen<'a> = (&'a BTreeMap<i32, i64>, Timestamp);

/// The index of queued commands, for each participant.
#[derive(Debug, Default)]
pub struct QueuedCommandIndex {
    participants: BTreeMap<String, Spots>,
}

#[derive(Debug, Default)]
struct Spots {
    placed: BTreeSet<(i32, i64, SagaId)>,
    unplaced: BTreeSet<(i32, Option<Timestamp>, SagaId)>,
}

/// An id that is less than every saga's id.
const NOBODY: SagaId = SagaId(Uuid::nil());

impl QueuedCommandIndex {
    pub fn add(&mut self, participant: &str, spot: IndexKey, saga: SagaId) {
        if !self.participants.contains_key(participant) {
            self.participants
                .insert(participant.to_owned(), Spots::default());
        }
        if let Some(spots) = self.participants.get_mut(participant) {
            match spot {
                IndexKey::At { partition, offset } => {
                    spots.placed.insert((partition, offset, saga))
                }
                IndexKey::Before {
                    home_partition,
                    sent_at,
                } => spots.unplaced.insert((home_partition, sent_at, saga)),
            };
        }
    }

    pub fn remove(&mut self, participant: &str, spot: IndexKey, saga: SagaId) {
        let Some(spots) = self.participants.get_mut(participant) else {
            return;
        };
        match spot {
            IndexKey::At { partition, offset } => spots.placed.remove(&(partition, offset, saga)),
            IndexKey::Before {
                home_partition,
                sent_at,
            } => spots.unplaced.remove(&(home_partition, sent_at, saga)),
        };
        if spots.placed.is_empty() && spots.unplaced.is_empty() {
            self.participants.remove(participant);
        }
    }

    pub fn participants(&self) -> BTreeSet<String> {
        self.participants.keys().cloned().collect()
    }

    /// Returns the saga of the first command with a known location, for each participant and each partition of its
    /// topic.
    pub fn first_of_each(&self) -> impl Iterator<Item = (&str, SagaId)> {
        self.participants.iter().flat_map(|(participant, spots)| {
            let firsts = spots.partitions().filter_map(|partition| {
                let from = (partition, i64::MIN, NOBODY);
                spots.placed.range(from..).next().map(|(.., saga)| *saga)
            });
            firsts.map(move |saga| (participant.as_str(), saga))
        })
    }

    /// Returns the number of commands in the index.
    pub fn count(&self) -> usize {
        let counts = self.participants.values();
        counts
            .map(|spots| spots.placed.len() + spots.unplaced.len())
            .sum()
    }

    /// Returns the sagas with a command that is no longer queued according to `seen`, or that needs newer end offsets
    /// than those of `ends_of`. Commands that are certainly still queued are not returned.
    pub fn passed<'a>(
        &'a self,
        participant: &str,
        seen: &'a TopicOffsets,
        ends_of: impl Fn(i32) -> Option<EndsSeen<'a>> + 'a,
    ) -> impl Iterator<Item = SagaId> + 'a {
        let spots = self.participants.get(participant).into_iter();
        spots.flat_map(move |spots| {
            let homes = spots.homes();
            let before: Vec<_> = homes.map(|home| (home, ends_of(home))).collect();
            let unplaced = before
                .into_iter()
                .flat_map(move |(home, ends)| spots.passed_of_home(home, ends, seen));
            let placed = spots
                .partitions()
                .flat_map(move |partition| spots.passed_of_partition(partition, seen));
            placed.chain(unplaced)
        })
    }
}

impl Spots {
    fn partitions(&self) -> impl Iterator<Item = i32> {
        let next = |from: i32| self.placed.range((from, i64::MIN, NOBODY)..).next();
        let first = next(i32::MIN).map(|(partition, ..)| *partition);
        std::iter::successors(first, move |last| {
            next(last + 1).map(|(partition, ..)| *partition)
        })
    }

    fn homes(&self) -> impl Iterator<Item = i32> {
        let next = |from: i32| self.unplaced.range((from, None, NOBODY)..).next();
        let first = next(i32::MIN).map(|(home, ..)| *home);
        std::iter::successors(first, move |last| next(last + 1).map(|(home, ..)| *home))
    }

    /// Returns the sagas of commands below the group's offset or the log's start, and of commands beyond the log's end.
    fn passed_of_partition(
        &self,
        partition: i32,
        seen: &TopicOffsets,
    ) -> impl Iterator<Item = SagaId> {
        let (below, beyond) = match seen.partitions.get(&partition) {
            Some(_) if mutant::on(Mutant::TimeOutQueued) => (i64::MAX, i64::MAX),
            Some(now) => (now.committed.max(now.start).min(now.end), now.end),
            None => (i64::MAX, i64::MAX),
        };
        let at = move |offset: i64| (partition, offset, NOBODY);
        let below = self.placed.range(at(i64::MIN)..at(below));
        let beyond = self.placed.range(at(beyond)..at(i64::MAX));
        below.chain(beyond).map(|(.., saga)| *saga)
    }

    fn passed_of_home(
        &self,
        home: i32,
        ends: Option<EndsSeen<'_>>,
        seen: &TopicOffsets,
    ) -> impl Iterator<Item = SagaId> {
        let from = match ends {
            Some((ends, at)) if !has_passed(ends, seen) => Some(at),
            Some(_) | None => None,
        };
        // A key behind the last command of this home partition.
        let until = (home + 1, None, NOBODY);
        let passed = self.unplaced.range((home, from, NOBODY)..until);
        passed.map(|(.., saga)| *saga)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timers::offsets::PartitionOffsets;

    fn saga(number: u128) -> SagaId {
        SagaId(Uuid::from_u128(number))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(second, 0).unwrap()
    }

    fn seen(start: i64, committed: i64, end: i64) -> TopicOffsets {
        let now = PartitionOffsets {
            start,
            end,
            committed,
        };
        TopicOffsets {
            at: at(100),
            by: at(100),
            partitions: [(0, now), (1, now)].into(),
        }
    }

    fn passed(
        list: &QueuedCommandIndex,
        seen: &TopicOffsets,
        ends: Option<EndsSeen<'_>>,
    ) -> Vec<u128> {
        let found = list.passed("payment", seen, |_| ends);
        found.map(|saga| saga.0.as_u128()).collect()
    }

    /// Sagas 1 to 9 at the offsets 10 to 90 of partition 1.
    fn placed() -> QueuedCommandIndex {
        let mut list = QueuedCommandIndex::default();
        for number in 1..=9_u32 {
            let offset = i64::from(number) * 10;
            let spot = IndexKey::At {
                partition: 1,
                offset,
            };
            list.add("payment", spot, saga(number.into()));
        }
        list
    }

    #[test]
    fn only_consumed_or_lost_commands_are_found() {
        let check = |start, committed, end, expected: &[u128]| {
            assert_eq!(
                passed(&placed(), &seen(start, committed, end), None),
                expected
            );
        };
        check(0, 0, 100, &[]);
        check(0, 30, 100, &[1, 2]);
        check(0, 31, 100, &[1, 2, 3]);
        check(25, 0, 100, &[1, 2]);
        check(0, 10, 90, &[9]);
        check(0, 95, 85, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_records_of_a_partition_that_is_not_there_are_lost() {
        let mut seen = seen(0, 0, 100);
        seen.partitions.remove(&1);
        assert_eq!(passed(&placed(), &seen, None).len(), 9);
    }

    #[test]
    fn a_predecessors_commands_are_passed_together_and_those_sent_later_need_a_newer_look() {
        let mut list = QueuedCommandIndex::default();
        for (number, sent_at) in [(1, None), (2, Some(at(5))), (3, Some(at(7)))] {
            let spot = IndexKey::Before {
                home_partition: 4,
                sent_at,
            };
            list.add("payment", spot, saga(number));
        }
        let ends = [(0, 50), (1, 50)].into();
        let ends = Some((&ends, at(6)));
        assert_eq!(passed(&list, &seen(0, 49, 90), ends), [3]);
        assert_eq!(passed(&list, &seen(0, 50, 90), ends), [1, 2, 3]);
        assert_eq!(passed(&list, &seen(0, 0, 90), None), [1, 2, 3]);
    }

    #[test]
    fn a_removed_command_leaves_no_entry() {
        let mut list = placed();
        assert_eq!((list.count(), list.participants().len()), (9, 1));
        for number in 1..=9_u32 {
            let offset = i64::from(number) * 10;
            let spot = IndexKey::At {
                partition: 1,
                offset,
            };
            list.remove("payment", spot, saga(number.into()));
        }
        assert_eq!((list.count(), list.participants().len()), (0, 0));
    }
}
