//! State that the engine, the timers, upkeep and the API share in one process.

use super::{
    db_clock::SharedClock,
    settings::EngineSettings,
    timers::{
        offsets::OffsetReader,
        pick_up_status::{CommandLocation, pick_up_status},
        queue::TimerQueue,
    },
};
use crate::registry::{Catalog, Choice, Current, Registry};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{CommandRef, PickUpStatus},
    transition::CommandContext,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::{info, warn};

pub struct Shared {
    pub settings: EngineSettings,
    pub registry: Registry,
    pub clock: Arc<SharedClock>,
    timers: Mutex<TimerQueue>,
    floor: Mutex<Option<Timestamp>>,
    committed: Mutex<Arc<BTreeMap<i32, i64>>>,
}

impl Shared {
    /// Creates the state with an empty registry, which [`Shared::learn`] fills.
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            registry: Registry::default(),
            clock: Arc::default(),
            timers: Mutex::default(),
            floor: Mutex::default(),
            committed: Mutex::default(),
        }
    }

    /// Takes over what is registered, and returns the definitions that new sagas take. Logs every definition of which
    /// new sagas take another version from now on, and every definition of which no new saga starts any more.
    pub fn learn(&self, catalog: Catalog) -> Arc<Current> {
        let before = self.registry.current();
        let current = self.registry.learn(&catalog);
        self.settings.participants.register(catalog.participants);
        if before.generation < 0 {
            // The process logs more than this when it starts.
            return current;
        }
        for definition in current.running() {
            let unchanged = before
                .running()
                .any(|running| running.hash == definition.hash);
            if !unchanged {
                info!(
                    definition = definition.name,
                    version = definition.version,
                    generation = current.generation,
                    "new sagas take this version from here on"
                );
            }
        }
        for definition in before.running() {
            if let Some(Choice::Withdrawn { why, .. } | Choice::Unreadable(why)) =
                current.choose(&definition.name)
            {
                warn!(
                    definition = definition.name,
                    generation = current.generation,
                    why,
                    "no new saga starts here"
                );
            }
        }
        current
    }

    pub fn timers(&self) -> MutexGuard<'_, TimerQueue> {
        lock(&self.timers)
    }

    /// Returns the floor, a low-water mark: no saga that began before it may have an effect any more.
    pub fn floor(&self) -> Option<Timestamp> {
        *lock(&self.floor)
    }

    /// Returns what commands that are sent now have in common.
    pub fn command_context(&self) -> CommandContext {
        CommandContext {
            reply_topic: self.settings.inputs_topic.clone(),
            floor: self.floor(),
            payload_limit: self.settings.payload_limit,
        }
    }

    /// Raises the floor. A lower value is ignored, because a floor never falls.
    pub fn raise_floor(&self, floor: Timestamp) {
        let mut held = lock(&self.floor);
        *held = Some(held.map_or(floor, |held| held.max(floor)));
    }

    /// Returns the offsets of `saga.inputs` that the orchestrators have committed, by partition.
    pub fn committed(&self) -> Arc<BTreeMap<i32, i64>> {
        Arc::clone(&lock(&self.committed))
    }

    pub fn set_committed(&self, committed: BTreeMap<i32, i64>) {
        *lock(&self.committed) = Arc::new(committed);
    }

    /// Returns whether a command in flight was picked up, as far as this process can tell now. `None` if another
    /// process owns the saga, or if nothing is known yet.
    pub async fn pick_up_status(
        &self,
        offsets: &OffsetReader,
        saga: SagaId,
        part: &CommandRef,
        participant: &str,
    ) -> Option<PickUpStatus> {
        let place: Option<CommandLocation> = self.timers().place(saga, part)?;
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
            (place, ends) => pick_up_status(place, &ends.unwrap_or_default(), Some(&seen)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
