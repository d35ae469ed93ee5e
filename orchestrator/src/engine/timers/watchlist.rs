//! Commands that are known to be queued, in the order in which their participant comes past them. What it has come past is
//! found without a look at what it has not: a participant that is away for a day has a million of them, and they are
//! looked at every second.

use super::{offsets::TopicSeen, verdict::has_passed};
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::ArmedTimer,
    message::{DuePart, Verdict},
    mutant::{self, Mutant},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A command, and whom to ask whether it was picked up. Those known to be queued stand in their saga's row beside the
/// state, as they are here: renaming a field is a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    pub part: DuePart,
    pub participant: String,
    pub sent_at: Option<Timestamp>,
}

impl Watched {
    /// `None` where offsets do not matter.
    pub fn of(timer: &ArmedTimer) -> Option<Self> {
        Some(Self {
            part: timer.part.clone()?,
            participant: timer.participant.clone()?,
            sent_at: timer.sent_at,
        })
    }

    /// `None` unless the saga knows the command to be queued. Its timer is not what moves it next: that its participant
    /// comes past it is.
    pub fn queued(timer: &ArmedTimer) -> Option<Self> {
        match timer.known? {
            Verdict::Queued => Self::of(timer),
            Verdict::PickedUp | Verdict::Unanswered | Verdict::Gone | Verdict::Unknown => None,
        }
    }
}

/// By what a command is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// In its participant's topic.
    At { partition: i32, offset: i64 },
    /// Sent by an owner before us: it stands below the ends that were seen of the topic for its home partition, if it was
    /// sent before that.
    Before {
        home_partition: i32,
        sent_at: Option<Timestamp>,
    },
}

/// The ends of a topic that stand in for the places of its commands, and when they were seen.
pub type EndsSeen<'a> = (&'a BTreeMap<i32, i64>, Timestamp);

/// See the module.
#[derive(Debug, Default)]
pub struct Watchlist {
    participants: BTreeMap<String, Spots>,
}

#[derive(Debug, Default)]
struct Spots {
    placed: BTreeSet<(i32, i64, SagaId)>,
    unplaced: BTreeSet<(i32, Option<Timestamp>, SagaId)>,
}

/// Below every id.
const NOBODY: SagaId = SagaId(Uuid::nil());

impl Watchlist {
    pub fn add(&mut self, participant: &str, spot: Spot, saga: SagaId) {
        if !self.participants.contains_key(participant) {
            self.participants
                .insert(participant.to_owned(), Spots::default());
        }
        if let Some(spots) = self.participants.get_mut(participant) {
            match spot {
                Spot::At { partition, offset } => spots.placed.insert((partition, offset, saga)),
                Spot::Before {
                    home_partition,
                    sent_at,
                } => spots.unplaced.insert((home_partition, sent_at, saga)),
            };
        }
    }

    pub fn remove(&mut self, participant: &str, spot: Spot, saga: SagaId) {
        let Some(spots) = self.participants.get_mut(participant) else {
            return;
        };
        match spot {
            Spot::At { partition, offset } => spots.placed.remove(&(partition, offset, saga)),
            Spot::Before {
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

    /// Commands.
    pub fn count(&self) -> usize {
        let counts = self.participants.values();
        counts
            .map(|spots| spots.placed.len() + spots.unplaced.len())
            .sum()
    }

    /// Sagas with a command that is not queued any more by what was seen of its participant's topic, or that needs a newer
    /// look than the one at the ends; none that is queued for certain.
    pub fn passed<'a>(
        &'a self,
        participant: &str,
        seen: &'a TopicSeen,
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

    /// What lies below the group's offset or the log's start, and what lies beyond the log's end.
    fn passed_of_partition(
        &self,
        partition: i32,
        seen: &TopicSeen,
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
        seen: &TopicSeen,
    ) -> impl Iterator<Item = SagaId> {
        let from = match ends {
            Some((ends, at)) if !has_passed(ends, seen) => Some(at),
            Some(_) | None => None,
        };
        // Behind the last one of this home.
        let until = (home + 1, None, NOBODY);
        let passed = self.unplaced.range((home, from, NOBODY)..until);
        passed.map(|(.., saga)| *saga)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timers::offsets::PartitionSeen;

    fn saga(number: u128) -> SagaId {
        SagaId(Uuid::from_u128(number))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(second, 0).unwrap()
    }

    fn seen(start: i64, committed: i64, end: i64) -> TopicSeen {
        let now = PartitionSeen {
            start,
            end,
            committed,
        };
        TopicSeen {
            at: at(100),
            partitions: [(0, now), (1, now)].into(),
        }
    }

    fn passed(list: &Watchlist, seen: &TopicSeen, ends: Option<EndsSeen<'_>>) -> Vec<u128> {
        let found = list.passed("payment", seen, |_| ends);
        found.map(|saga| saga.0.as_u128()).collect()
    }

    /// Sagas 1 to 9 at the offsets 10 to 90 of partition 1.
    fn placed() -> Watchlist {
        let mut list = Watchlist::default();
        for number in 1..=9_u32 {
            let offset = i64::from(number) * 10;
            let spot = Spot::At {
                partition: 1,
                offset,
            };
            list.add("payment", spot, saga(number.into()));
        }
        list
    }

    #[test]
    fn what_the_group_has_passed_or_the_log_has_lost_is_found_and_nothing_else() {
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
        let mut list = Watchlist::default();
        for (number, sent_at) in [(1, None), (2, Some(at(5))), (3, Some(at(7)))] {
            let spot = Spot::Before {
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
    fn what_was_taken_off_leaves_nothing_behind() {
        let mut list = placed();
        assert_eq!((list.count(), list.participants().len()), (9, 1));
        for number in 1..=9_u32 {
            let offset = i64::from(number) * 10;
            let spot = Spot::At {
                partition: 1,
                offset,
            };
            list.remove("payment", spot, saga(number.into()));
        }
        assert_eq!((list.count(), list.participants().len()), (0, 0));
    }
}
