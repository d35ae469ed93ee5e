//! What the engine, the timers, the upkeep and the API share in one process.

use super::{
    db_clock::DbClock,
    settings::EngineSettings,
    timers::{
        offsets::Offsets,
        queue::TimerQueue,
        verdict::{Place, verdict},
    },
};
use crate::registry::Registry;
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    message::{DuePart, Verdict},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::warn;

pub struct Shared {
    pub settings: EngineSettings,
    pub registry: Registry,
    pub clock: Arc<DbClock>,
    timers: Mutex<TimerQueue>,
    floor: Mutex<Option<Timestamp>>,
    committed: Mutex<Arc<BTreeMap<i32, i64>>>,
}

impl Shared {
    pub fn new(settings: EngineSettings, registry: Registry) -> Self {
        Self {
            settings,
            registry,
            clock: Arc::default(),
            timers: Mutex::default(),
            floor: Mutex::default(),
            committed: Mutex::default(),
        }
    }

    /// Holds a registered definition. One with a participant that is not configured starts nothing new: its commands
    /// would have nowhere to go.
    pub fn hold(&self, definition: SagaDefinition) -> Arc<SagaDefinition> {
        let unknown = self.settings.participants.first_unknown(&definition);
        match unknown {
            None => self.registry.insert(definition),
            Some(participant) => {
                warn!(
                    definition = definition.name,
                    version = definition.version,
                    participant,
                    "a registered definition starts nothing, since its participant is not configured"
                );
                self.registry.insert_pinned(definition)
            }
        }
    }

    pub fn timers(&self) -> MutexGuard<'_, TimerQueue> {
        lock(&self.timers)
    }

    /// No saga that began before this may have an effect any more.
    pub fn floor(&self) -> Option<Timestamp> {
        *lock(&self.floor)
    }

    /// A floor only ever rises.
    pub fn raise_floor(&self, floor: Timestamp) {
        let mut held = lock(&self.floor);
        *held = Some(held.map_or(floor, |held| held.max(floor)));
    }

    /// Offsets of `saga.inputs` that the orchestrators have committed, by partition.
    pub fn committed(&self) -> Arc<BTreeMap<i32, i64>> {
        Arc::clone(&lock(&self.committed))
    }

    pub fn set_committed(&self, committed: BTreeMap<i32, i64>) {
        *lock(&self.committed) = Arc::new(committed);
    }

    /// Whether a command in flight was picked up, as far as this process can tell right now. `None` if another one
    /// owns the saga, or nothing is known yet.
    pub async fn verdict(
        &self,
        offsets: &Offsets,
        saga: SagaId,
        part: &DuePart,
        participant: &str,
    ) -> Option<Verdict> {
        let place: Option<Place> = self.timers().place(saga, part)?;
        let configured = self.settings.participants.get(participant)?;
        let seen = offsets.seen(&configured.topic, &configured.group).await?;
        let ends = {
            let timers = self.timers();
            timers
                .home_of(saga)
                .and_then(|home| timers.ends(home, participant))
        };
        match (place, ends) {
            (None, None) => None,
            (place, ends) => verdict(place, &ends.unwrap_or_default(), Some(&seen)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
