//! What the engine is told: topics, participants, limits.

use saga_core::definition::SagaDefinition;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a participant is reached, and whose offsets tell what it has picked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    /// Its command topic.
    pub topic: String,
    /// Its consumer group.
    pub group: String,
}

/// Everyone who can be sent commands, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Participants(pub BTreeMap<String, Participant>);

impl Participants {
    pub fn get(&self, name: &str) -> Option<&Participant> {
        self.0.get(name)
    }

    /// A participant's topic. One that a pinned definition names and the configuration no longer does is reached
    /// under the conventional name, so that its sagas can end.
    pub fn topic(&self, name: &str) -> String {
        self.get(name).map_or_else(
            || format!("{name}.commands"),
            |participant| participant.topic.clone(),
        )
    }

    /// The first participant of a definition that nobody configured.
    pub fn first_unknown(&self, definition: &SagaDefinition) -> Option<String> {
        definition
            .participants()
            .into_iter()
            .find(|name| self.get(name).is_none())
            .map(str::to_owned)
    }

    pub fn is_command_topic(&self, topic: &str) -> bool {
        self.0
            .values()
            .any(|participant| participant.topic == topic)
            || topic.ends_with(".commands")
    }
}

/// Fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub inputs_topic: String,
    pub events_topic: String,
    /// `ce_source` of everything the orchestrator sends.
    pub source: String,
    pub participants: Participants,
    /// Ids of starts are made at most this long after their record's time.
    pub id_window_after_ms: i64,
    /// Largest record that the broker takes.
    pub message_limit_bytes: usize,
}
