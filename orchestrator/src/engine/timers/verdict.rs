//! Was a command picked up? Decided from where it stands and how far its participant's group is.

use super::offsets::TopicSeen;
use saga_core::{
    ids::Timestamp,
    message::Verdict,
    mutant::{self, Mutant},
};
use std::collections::BTreeMap;

/// Where a command of ours stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Decided, but not acknowledged yet.
    Unpublished,
    At {
        partition: i32,
        offset: i64,
        known_at: Timestamp,
    },
}

/// What is known of a command, or `None` if that has to wait for a newer look at the offsets. A command without a
/// place was sent by an owner before us: it stands below the log's end at our assignment.
pub fn verdict(
    place: Option<Place>,
    ends_at_assignment: &BTreeMap<i32, i64>,
    seen: Option<&TopicSeen>,
) -> Option<Verdict> {
    let Some(seen) = seen else {
        return (place != Some(Place::Unpublished)).then_some(Verdict::Unknown);
    };
    if mutant::on(Mutant::TimeOutQueued) {
        return Some(Verdict::PickedUp);
    }
    match place {
        Some(Place::Unpublished) => None,
        Some(Place::At { known_at, .. }) if seen.at < known_at => None,
        Some(Place::At {
            partition, offset, ..
        }) => Some(of_record(seen, partition, offset)),
        None => Some(if has_passed(ends_at_assignment, seen) {
            Verdict::PickedUp
        } else {
            Verdict::Queued
        }),
    }
}

/// Whether the group has read everything that stood below these ends.
pub fn has_passed(ends: &BTreeMap<i32, i64>, seen: &TopicSeen) -> bool {
    ends.iter().all(|(partition, end)| {
        seen.partitions
            .get(partition)
            .is_none_or(|now| now.committed >= *end)
    })
}

fn of_record(seen: &TopicSeen, partition: i32, offset: i64) -> Verdict {
    match seen.partitions.get(&partition) {
        // The topic was made anew, with fewer partitions or fewer records.
        None => Verdict::Gone,
        Some(now) if offset >= now.end => Verdict::Gone,
        Some(now) if offset < now.committed => Verdict::PickedUp,
        Some(now) if offset < now.start => Verdict::Gone,
        Some(_) => Verdict::Queued,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timers::offsets::PartitionSeen;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn check(offset: i64, start: i64, committed: i64, end: i64, expected: Verdict) {
        let partitions = [(
            3,
            PartitionSeen {
                start,
                end,
                committed,
            },
        )]
        .into();
        let seen = TopicSeen {
            at: at(10),
            partitions,
        };
        let place = Place::At {
            partition: 3,
            offset,
            known_at: at(9),
        };
        assert_eq!(
            verdict(Some(place), &BTreeMap::new(), Some(&seen)),
            Some(expected)
        );
    }

    #[test]
    fn a_command_is_queued_until_the_group_has_passed_it() {
        check(5, 0, 0, 9, Verdict::Queued);
        check(5, 0, 5, 9, Verdict::Queued);
        check(5, 0, 6, 9, Verdict::PickedUp);
        check(5, 7, 9, 9, Verdict::PickedUp);
    }

    #[test]
    fn a_command_is_gone_when_the_log_no_longer_has_it_and_nobody_consumed_it() {
        check(5, 7, 0, 9, Verdict::Gone);
        check(5, 0, 0, 5, Verdict::Gone);
        check(5, 0, 9, 2, Verdict::Gone);
    }

    #[test]
    fn a_predecessors_command_is_queued_until_the_group_has_passed_the_log_as_it_was() {
        let ends = [(0, 4), (1, 7)].into();
        let seen = |one: i64| TopicSeen {
            at: at(10),
            partitions: [
                (
                    0,
                    PartitionSeen {
                        start: 0,
                        end: 9,
                        committed: 4,
                    },
                ),
                (
                    1,
                    PartitionSeen {
                        start: 0,
                        end: 9,
                        committed: one,
                    },
                ),
            ]
            .into(),
        };
        assert_eq!(verdict(None, &ends, Some(&seen(6))), Some(Verdict::Queued));
        assert_eq!(
            verdict(None, &ends, Some(&seen(7))),
            Some(Verdict::PickedUp)
        );
    }

    #[test]
    fn an_old_look_tells_nothing_of_a_new_command_and_no_look_means_unknown() {
        let seen = TopicSeen {
            at: at(8),
            partitions: BTreeMap::new(),
        };
        let place = Place::At {
            partition: 0,
            offset: 0,
            known_at: at(9),
        };
        assert_eq!(verdict(Some(place), &BTreeMap::new(), Some(&seen)), None);
        assert_eq!(
            verdict(Some(place), &BTreeMap::new(), None),
            Some(Verdict::Unknown)
        );
        assert_eq!(
            verdict(Some(Place::Unpublished), &BTreeMap::new(), None),
            None
        );
    }
}
