//! The state of a partition of `saga.inputs` that this process owns, including the end offsets that were read when it
//! took the partition over.

use super::{
    offsets::{Offsets, PartitionOffsets, TopicOffsets},
    saga_timers::ReadBarrier,
};
use chrono::TimeDelta;
use saga_core::ids::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// The time after which the rest of a log is assumed to contain no records, if nothing is read from it and nothing is
/// added.
const STANDSTILL: TimeDelta = TimeDelta::seconds(30);

/// A partition of `saga.inputs` that this process owns.
#[derive(Debug, Default)]
pub(super) struct OwnedPartition {
    /// The next offset to handle, as far as it is known.
    pub(super) read_to: i64,
    /// End offsets of the command topics, by participant, from the first reading after the assignment.
    pub(super) ends: HashMap<String, EndOffsets>,
    /// No timer fires before this time, because inputs were lost and the commands that they answered are sent again.
    pub(super) held_until: Option<Timestamp>,
}

/// The end offsets of a topic at a time: every command that was sent before it is below them.
#[derive(Debug)]
pub(super) struct EndOffsets {
    pub(super) at: Timestamp,
    pub(super) partitions: BTreeMap<i32, i64>,
}

impl EndOffsets {
    pub(super) fn of(topic: &TopicOffsets) -> Self {
        let end = |(number, now): (&i32, &PartitionOffsets)| (*number, now.end);
        Self {
            at: topic.at,
            partitions: topic.partitions.iter().map(end).collect(),
        }
    }
}

impl OwnedPartition {
    /// Returns whether nothing is left to read before the barrier. The end of a log may consist of a transaction's
    /// markers or of aborted records, which no reader gets. This is assumed if neither our reading nor the end has
    /// moved for a long time.
    pub(super) fn has_nothing_left(
        &self,
        read_barrier: ReadBarrier,
        partition: i32,
        seen: &Offsets,
    ) -> bool {
        seen.inputs.as_ref().is_some_and(|inputs| {
            inputs.at - read_barrier.seen_at >= STANDSTILL
                && self.read_to == read_barrier.read_to
                && inputs
                    .partitions
                    .get(&partition)
                    .is_some_and(|now| now.end == read_barrier.end)
        })
    }
}
