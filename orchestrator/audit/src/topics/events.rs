//! Events of one saga, and the answers of its participants.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};
use uuid::Uuid;

/// Types of the events that end a saga.
const TERMINAL: [(&str, &str); 3] = [
    ("saga.completed", "completed"),
    ("saga.compensated", "compensated"),
    ("saga.abandoned", "abandoned"),
];

/// The most missing numbers that are collected.
const GAPS_MAX: usize = 1_000;
/// Type of the first event after a saga was recovered.
const RECOVERED: &str = "saga.recovered";

/// Type of an event and hash of its value, by which two events are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    content: u64,
    /// The status with which the event ends the saga.
    pub ends: Option<&'static str>,
    /// True if the event says that the saga was recovered after its state was lost.
    recovers: bool,
}

impl Event {
    pub fn new(kind: &str, payload: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        (kind, payload).hash(&mut hasher);
        let ends = TERMINAL.iter().find(|(name, _)| *name == kind);
        Self {
            content: hasher.finish(),
            ends: ends.map(|(_, status)| *status),
            recovers: kind == RECOVERED,
        }
    }
}

/// All events of one saga, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub partition: i32,
    pub events: BTreeMap<i64, Event>,
    /// Sequence numbers that occur with two contents.
    pub differing: BTreeSet<i64>,
}

impl Story {
    pub fn add(&mut self, sequence: i64, event: Event) {
        let first = self.events.entry(sequence).or_insert(event);
        if *first != event {
            self.differing.insert(sequence);
        }
    }

    /// Returns the number of the event with which the saga was last recovered. Earlier events belong to a state that
    /// was lost.
    fn recovered_at(&self) -> Option<i64> {
        let mut latest = self.events.iter().rev();
        latest
            .find(|(_, event)| event.recovers)
            .map(|(sequence, _)| *sequence)
    }

    /// Returns the numbers of the events that end the saga, with the status of each.
    pub fn ends(&self) -> Vec<(i64, &'static str)> {
        self.events
            .range(self.recovered_at().unwrap_or_default()..)
            .filter_map(|(sequence, event)| Some((*sequence, event.ends?)))
            .collect()
    }

    /// Returns the numbers that are missing up to `last`. Numbers before the first event are included only if
    /// `from_first` is set.
    pub fn gaps(&self, last: i64, from_first: bool) -> Vec<i64> {
        let first = match self.recovered_at() {
            Some(recovered) => recovered,
            None if from_first => 1,
            None => self.events.keys().next().copied().unwrap_or(last),
        };
        (first..=last)
            .filter(|sequence| !self.events.contains_key(sequence))
            // The sequence numbers of a recovered saga are large.
            .take(GAPS_MAX)
            .collect()
    }
}

/// Returns true if the value names the same event as the headers.
pub fn names(payload: Option<&[u8]>, saga: Uuid, sequence: i64) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        saga_id: Uuid,
        sequence: i64,
    }
    payload
        .and_then(|payload| serde_json::from_slice::<Named>(payload).ok())
        .is_some_and(|named| named.saga_id == saga && named.sequence == sequence)
}

/// Answers of a participant to the forward and resolve commands of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub success: bool,
    /// The step is not done and never will be.
    pub not_done: bool,
}

impl Answers {
    pub fn add(&mut self, outcome: &str) {
        self.success |= outcome == "success";
        self.not_done |= outcome == "not_done";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(events: &[(i64, &str)]) -> Story {
        let mut story = Story::default();
        for (sequence, kind) in events {
            story.add(*sequence, Event::new(kind, Some(b"{}")));
        }
        story
    }

    #[test]
    fn gaps_are_found_inside_and_before() {
        let told = story(&[(2, "saga.x"), (3, "saga.x"), (5, "saga.completed")]);
        assert_eq!(told.gaps(6, true), [1, 4, 6]);
        assert_eq!(told.gaps(5, false), [4]);
        assert_eq!(told.ends(), [(5, "completed")]);
    }

    #[test]
    fn a_recovered_saga_reports_only_its_last_life() {
        let told = story(&[
            (1, "saga.started"),
            (3, "saga.completed"),
            (1_000, "saga.recovered"),
            (1_002, "saga.compensated"),
        ]);
        assert_eq!(told.gaps(1_002, true), [1_001]);
        assert_eq!(told.ends(), [(1_002, "compensated")]);
    }

    #[test]
    fn a_repeated_event_is_one_and_a_changed_one_differs() {
        let told = story(&[(1, "saga.started"), (1, "saga.started")]);
        assert!(told.differing.is_empty());
        let told = story(&[(1, "saga.started"), (1, "saga.completed")]);
        assert!(told.differing.contains(&1));
    }

    #[test]
    fn headers_and_value_must_name_the_same_event() {
        let saga = Uuid::from_u128(7);
        let value = format!(r#"{{"sagaId":"{saga}","sequence":3,"type":"started"}}"#);
        assert!(names(Some(value.as_bytes()), saga, 3));
        assert!(!names(Some(value.as_bytes()), saga, 4));
        assert!(!names(Some(b"nonsense"), saga, 3));
    }
}
