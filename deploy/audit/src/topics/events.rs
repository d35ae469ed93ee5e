//! What the events of one saga tell, and what its participants answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};
use uuid::Uuid;

/// Types of events after which a saga does nothing more.
const TERMINAL: [(&str, &str); 3] = [
    ("saga.completed", "completed"),
    ("saga.compensated", "compensated"),
    ("saga.abandoned", "abandoned"),
];

/// An event's type and the hash of its value: enough to tell two of them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    content: u64,
    /// The status that it ends the saga with.
    pub ends: Option<&'static str>,
}

impl Event {
    pub fn new(kind: &str, payload: Option<&[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        (kind, payload).hash(&mut hasher);
        let ends = TERMINAL.iter().find(|(name, _)| *name == kind);
        Self {
            content: hasher.finish(),
            ends: ends.map(|(_, status)| *status),
        }
    }
}

/// All events of one saga, duplicates folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub partition: i32,
    pub events: BTreeMap<i64, Event>,
    /// Numbers that were seen with two contents.
    pub differing: BTreeSet<i64>,
}

impl Story {
    pub fn add(&mut self, sequence: i64, event: Event) {
        let first = self.events.entry(sequence).or_insert(event);
        if *first != event {
            self.differing.insert(sequence);
        }
    }

    /// Numbers of the events that end the saga, with the status that each ends it with.
    pub fn ends(&self) -> Vec<(i64, &'static str)> {
        self.events
            .iter()
            .filter_map(|(sequence, event)| Some((*sequence, event.ends?)))
            .collect()
    }

    /// Numbers that are missing below `last`; those before the first one only if `from_first`.
    pub fn gaps(&self, last: i64, from_first: bool) -> Vec<i64> {
        let first = if from_first {
            1
        } else {
            self.events.keys().next().copied().unwrap_or(last)
        };
        (first..=last)
            .filter(|sequence| !self.events.contains_key(sequence))
            .collect()
    }
}

/// Whether the value is the event that the headers say.
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

/// Outcomes that a participant answered to the forward commands of one step, and to resolve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub success: bool,
    /// It is not done and never will be.
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
