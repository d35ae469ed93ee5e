//! The engine's settings: topics, participants and limits.

use saga_core::message::PayloadLimit;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

/// A participant's command topic, and the consumer group whose offsets show which commands it has picked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    /// The participant's command topic.
    pub topic: String,
    /// The participant's consumer group.
    pub group: String,
}

/// All participants that commands can be sent to, by name: those that this process is configured with and, for all
/// other names, those that other processes have registered. Because of this, a definition that a newer process has
/// registered runs here too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Participants {
    pub configured: BTreeMap<String, Participant>,
    /// The registered participants, shared by all clones.
    #[serde(skip)]
    registered: Arc<RwLock<BTreeMap<String, Participant>>>,
}

impl From<BTreeMap<String, Participant>> for Participants {
    fn from(configured: BTreeMap<String, Participant>) -> Self {
        Self {
            configured,
            registered: Arc::default(),
        }
    }
}

impl Participants {
    pub fn get(&self, name: &str) -> Option<Participant> {
        let configured = self.configured.get(name).cloned();
        configured.or_else(|| self.registered().get(name).cloned())
    }

    /// Replaces the participants that are known to be registered.
    pub fn register(&self, registered: BTreeMap<String, Participant>) {
        let mut held = self
            .registered
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = registered;
    }

    fn registered(&self) -> RwLockReadGuard<'_, BTreeMap<String, Participant>> {
        self.registered
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns every participant once. The configuration takes precedence over what is registered.
    pub fn all(&self) -> BTreeMap<String, Participant> {
        let mut all = self.registered().clone();
        all.extend(self.configured.clone());
        all
    }

    /// Returns a participant's command topic. A participant that is neither configured nor registered has the
    /// conventional topic `<name>.commands`.
    pub fn topic(&self, name: &str) -> String {
        self.get(name).map_or_else(
            || format!("{name}.commands"),
            |participant| participant.topic,
        )
    }
}

/// Settings that are fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub inputs_topic: String,
    pub events_topic: String,
    /// `ce_source` of everything the orchestrator sends.
    pub source: String,
    pub participants: Participants,
    pub payload_limit: PayloadLimit,
}
