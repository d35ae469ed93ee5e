//! The intents of a batch in memory: they are locked and read once, changed, and written once.

use super::{barrier::RowKey, reply::PreparedReply};
use saga_core::{ids::Timestamp, message::Command};
use std::collections::BTreeMap;

/// The state of an intent; the table's migration explains the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentState {
    /// The call must be made, or is in flight.
    Open,
    /// The call's outcome is final.
    Settled,
    /// The call was definitely not done, and that is not saved: its command may come again.
    Released,
    /// The call's outcome can no longer be learned.
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

/// A row of the table of external calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Last part of the idempotency key; raised after a definite failure that is not saved.
    pub generation: i32,
    pub state: IntentState,
    /// End of the lease: until then an instance is working on the call.
    pub lease_until: Timestamp,
    pub opened_at: Timestamp,
    pub command: Command,
    /// A compensation that waits for the outcome.
    pub cancel: Option<Command>,
    /// A resolve that waits for the outcome.
    pub resolve: Option<Command>,
    /// Replies that are not acknowledged yet.
    pub replies: Option<Vec<PreparedReply>>,
}

impl Intent {
    /// Takes over a duplicate of the command, so that the latest attempt is answered. The payload stays the one that
    /// the idempotency key was first used with.
    pub(super) fn asked_again(&mut self, command: &Command) {
        if command.attempt >= self.command.attempt {
            self.command = Command {
                payload: std::mem::take(&mut self.command.payload),
                ..command.clone()
            };
        }
    }
}

/// Keeps the command with the later attempt of two that ask the same.
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

    /// Returns the intent and marks it as changed.
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

    /// Forgets a released intent whose command can never run again, and so its generation; if replies wait for their
    /// acknowledgment, the intent is kept until then as settled.
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

    /// Returns the intents to write and the keys to remove.
    pub fn changes(&self) -> (Vec<(&RowKey, &Intent)>, Vec<&RowKey>) {
        let changed = || self.slots.iter().filter(|(_, slot)| slot.changed);
        let written = changed().filter_map(|(key, slot)| Some((key, slot.intent.as_ref()?)));
        let gone = changed().filter(|(_, slot)| slot.stored && slot.intent.is_none());
        (written.collect(), gone.map(|(key, _)| key).collect())
    }
}
