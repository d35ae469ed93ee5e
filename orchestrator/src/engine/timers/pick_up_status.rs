//! Decides whether a command was picked up, from its location and from the offsets of its participant's group.

use super::offsets::TopicOffsets;
use saga_core::{
    ids::Timestamp,
    message::PickUpStatus,
    mutant::{self, Mutant},
};
use std::collections::BTreeMap;

/// The location of a command that this process has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandLocation {
    /// The command is decided, but the log has not acknowledged it yet.
    Unpublished,
    At {
        partition: i32,
        offset: i64,
        known_at: Timestamp,
    },
}

/// Returns the pick-up status of a command, or `None` if that has to wait for newer offsets. A command without a location was
/// sent by a previous owner: it is below the topic's end offsets at our assignment.
pub fn pick_up_status(
    place: Option<CommandLocation>,
    ends_at_assignment: &BTreeMap<i32, i64>,
    seen: Option<&TopicOffsets>,
) -> Option<PickUpStatus> {
    let Some(seen) = seen else {
        return (place != Some(CommandLocation::Unpublished)).then_some(PickUpStatus::Unknown);
    };
    if mutant::on(Mutant::TimeOutQueued) {
        return Some(PickUpStatus::PickedUp);
    }
    match place {
        Some(CommandLocation::Unpublished) => None,
        Some(CommandLocation::At { known_at, .. }) if seen.at < known_at => None,
        Some(CommandLocation::At {
            partition, offset, ..
        }) => Some(of_record(seen, partition, offset)),
        None => Some(if has_passed(ends_at_assignment, seen) {
            PickUpStatus::PickedUp
        } else {
            PickUpStatus::Queued
        }),
    }
}

/// Returns whether the group has consumed everything below these end offsets.
pub fn has_passed(ends: &BTreeMap<i32, i64>, seen: &TopicOffsets) -> bool {
    ends.iter().all(|(partition, end)| {
        seen.partitions
            .get(partition)
            .is_none_or(|now| now.committed >= *end)
    })
}

fn of_record(seen: &TopicOffsets, partition: i32, offset: i64) -> PickUpStatus {
    match seen.partitions.get(&partition) {
        // The topic was recreated, with fewer partitions or fewer records.
        None => PickUpStatus::Gone,
        Some(now) if offset >= now.end => PickUpStatus::Gone,
        Some(now) if offset < now.committed => PickUpStatus::PickedUp,
        Some(now) if offset < now.start => PickUpStatus::Gone,
        Some(_) => PickUpStatus::Queued,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timers::offsets::PartitionOffsets;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn check(offset: i64, start: i64, committed: i64, end: i64, expected: PickUpStatus) {
        let partitions = [(
            3,
            PartitionOffsets {
                start,
                end,
                committed,
            },
        )]
        .into();
        let seen = TopicOffsets {
            at: at(10),
            by: at(10),
            partitions,
        };
        let place = CommandLocation::At {
            partition: 3,
            offset,
            known_at: at(9),
        };
        assert_eq!(
            pick_up_status(Some(place), &BTreeMap::new(), Some(&seen)),
            Some(expected)
        );
    }

    #[test]
    fn a_command_is_queued_until_the_group_has_passed_it() {
        check(5, 0, 0, 9, PickUpStatus::Queued);
        check(5, 0, 5, 9, PickUpStatus::Queued);
        check(5, 0, 6, 9, PickUpStatus::PickedUp);
        check(5, 7, 9, 9, PickUpStatus::PickedUp);
    }

    #[test]
    fn a_command_is_gone_if_its_record_was_lost_before_it_was_consumed() {
        check(5, 7, 0, 9, PickUpStatus::Gone);
        check(5, 0, 0, 5, PickUpStatus::Gone);
        check(5, 0, 9, 2, PickUpStatus::Gone);
    }

    #[test]
    fn a_predecessors_command_is_queued_until_the_group_has_passed_the_log_as_it_was() {
        let ends = [(0, 4), (1, 7)].into();
        let seen = |one: i64| TopicOffsets {
            at: at(10),
            by: at(10),
            partitions: [
                (
                    0,
                    PartitionOffsets {
                        start: 0,
                        end: 9,
                        committed: 4,
                    },
                ),
                (
                    1,
                    PartitionOffsets {
                        start: 0,
                        end: 9,
                        committed: one,
                    },
                ),
            ]
            .into(),
        };
        assert_eq!(
            pick_up_status(None, &ends, Some(&seen(6))),
            Some(PickUpStatus::Queued)
        );
        assert_eq!(
            pick_up_status(None, &ends, Some(&seen(7))),
            Some(PickUpStatus::PickedUp)
        );
    }

    #[test]
    fn older_offsets_do_not_decide_a_newer_command_and_missing_offsets_mean_unknown() {
        let seen = TopicOffsets {
            at: at(8),
            by: at(8),
            partitions: BTreeMap::new(),
        };
        let place = CommandLocation::At {
            partition: 0,
            offset: 0,
            known_at: at(9),
        };
        assert_eq!(
            pick_up_status(Some(place), &BTreeMap::new(), Some(&seen)),
            None
        );
        assert_eq!(
            pick_up_status(Some(place), &BTreeMap::new(), None),
            Some(PickUpStatus::Unknown)
        );
        assert_eq!(
            pick_up_status(Some(CommandLocation::Unpublished), &BTreeMap::new(), None),
            None
        );
    }
}
