//! The intents of a batch, in memory: locked and read once, changed, written once.

use super::{barrier::RowKey, reply::PreparedReply};
use saga_core::{ids::Timestamp, message::Command};
use std::collections::BTreeMap;

/// See the table's migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentState {
    /// To be called, or being called.
    Open,
    /// Its outcome is final.
    Settled,
    /// Definitely not done, and not saved: its command may come again.
    Released,
    /// Its outcome cannot be learned any more.
    Expired,
}

impl IntentState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Settled, Self::Released, Self::Expired]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A row of the external calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Part of the key outside; raised after a definite failure that is not saved.
    pub generation: i32,
    pub state: IntentState,
    /// Until then somebody is at it.
    pub lease_until: Timestamp,
    pub opened_at: Timestamp,
    pub command: Command,
    /// A compensation that waits for the outcome.
    pub cancel: Option<Command>,
    /// A resolve that waits for the outcome.
    pub resolve: Option<Command>,
    /// Not acknowledged yet.
    pub replies: Option<Vec<PreparedReply>>,
}

impl Intent {
    /// A duplicate of the command: later attempts are the ones to answer. The payload stays what the key stands for.
    pub(super) fn asked_again(&mut self, command: &Command) {
        if command.attempt >= self.command.attempt {
            self.command = Command {
                payload: std::mem::take(&mut self.command.payload),
                ..command.clone()
            };
        }
    }
}

/// The latest of two that ask the same.
pub(super) fn latest(waiting: &mut Option<Command>, command: &Command) {
    if waiting
        .as_ref()
        .is_none_or(|other| command.attempt >= other.attempt)
    {
        *waiting = Some(command.clone());
    }
}

#[derive(Debug, Default)]
struct Slot {
    stored: bool,
    intent: Option<Intent>,
    changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Intents {
    slots: BTreeMap<RowKey, Slot>,
}

impl Intents {
    pub fn new(stored: impl IntoIterator<Item = (RowKey, Intent)>) -> Self {
        let slot = |intent| Slot {
            stored: true,
            intent: Some(intent),
            changed: false,
        };
        Self {
            slots: stored
                .into_iter()
                .map(|(key, intent)| (key, slot(intent)))
                .collect(),
        }
    }

    pub fn get(&self, key: &RowKey) -> Option<&Intent> {
        self.slots.get(key)?.intent.as_ref()
    }

    /// For a change.
    pub fn get_mut(&mut self, key: &RowKey) -> Option<&mut Intent> {
        let slot = self.slots.get_mut(key)?;
        let intent = slot.intent.as_mut()?;
        slot.changed = true;
        Some(intent)
    }

    pub fn set(&mut self, key: RowKey, intent: Intent) {
        let slot = self.slots.entry(key).or_default();
        slot.intent = Some(intent);
        slot.changed = true;
    }

    /// The command can never run again, so its generation may be forgotten, after its last reply.
    pub fn forget_released(&mut self, key: &RowKey) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let Some(intent) = slot
            .intent
            .as_mut()
            .filter(|intent| intent.state == IntentState::Released)
        else {
            return;
        };
        slot.changed = true;
        if intent.replies.is_some() {
            intent.state = IntentState::Settled;
        } else {
            slot.intent = None;
        }
    }

    /// What must be written, and what must go.
    pub fn changes(&self) -> (Vec<(&RowKey, &Intent)>, Vec<&RowKey>) {
        let changed = || self.slots.iter().filter(|(_, slot)| slot.changed);
        let written = changed().filter_map(|(key, slot)| Some((key, slot.intent.as_ref()?)));
        let gone = changed().filter(|(_, slot)| slot.stored && slot.intent.is_none());
        (written.collect(), gone.map(|(key, _)| key).collect())
    }
}
