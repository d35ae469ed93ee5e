//! What an owner knows of a partition of `saga.inputs`, and what it saw of the topics when it got it.

use super::{
    entry::Gate,
    offsets::{PartitionSeen, Seen, TopicSeen},
};
use chrono::TimeDelta;
use saga_core::ids::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// What stands in a log and is not read for this long, while nothing is added, is no record.
const STANDSTILL: TimeDelta = TimeDelta::seconds(30);

/// A partition of `saga.inputs` that is ours.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// The next offset to be handled, as far as it is known.
    pub(super) read_to: i64,
    /// Ends of the command topics, by participant, when we first looked after the assignment.
    pub(super) ends: HashMap<String, Ends>,
    /// Nothing falls due before this: inputs were lost, and what they answered is asked again.
    pub(super) held_until: Option<Timestamp>,
}

/// What stood in a topic at an instant: every command sent before it.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) at: Timestamp,
    pub(super) partitions: BTreeMap<i32, i64>,
}

impl Ends {
    pub(super) fn of(topic: &TopicSeen) -> Self {
        let end = |(number, now): (&i32, &PartitionSeen)| (*number, now.end);
        Self {
            at: topic.at,
            partitions: topic.partitions.iter().map(end).collect(),
        }
    }
}

impl Owned {
    /// The end of a log may be a transaction's markers or its aborted records, which no reader gets: our reading and
    /// the end have both stood still for long.
    pub(super) fn has_nothing_left(&self, gate: Gate, partition: i32, seen: &Seen) -> bool {
        seen.inputs.as_ref().is_some_and(|inputs| {
            inputs.at - gate.seen_at >= STANDSTILL
                && self.read_to == gate.read_to
                && inputs
                    .partitions
                    .get(&partition)
                    .is_some_and(|now| now.end == gate.end)
        })
    }
}
