//! The barrier's rows of a batch in memory: they are read once, changed command by command, and written once.

use super::reply::SavedReply;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
    message::{Command, Direction},
    mutant::{self, Mutant},
};
use std::collections::BTreeMap;

/// The key of a row in the barrier, and of the same command's intent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    pub saga_id: SagaId,
    pub step: String,
    /// `Forward` or `Compensation`.
    pub direction: Direction,
}

impl RowKey {
    pub fn of(command: &Command, direction: Direction) -> Self {
        Self {
            saga_id: command.saga_id,
            step: command.step.clone(),
            direction,
        }
    }
}

/// The contents of a barrier row.
#[derive(Clone, Debug, PartialEq)]
pub struct BarrierRow {
    pub mark: Mark,
    /// The reply to a duplicate; a refused command has none.
    pub reply: Option<SavedReply>,
    pub handled_at: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    stored: bool,
    entry: Option<BarrierRow>,
    changed: bool,
}

/// The writes that bring the table to the state in memory.
#[derive(Debug, Default)]
pub(super) struct BarrierChanges<'a> {
    pub inserts: Vec<(&'a RowKey, &'a BarrierRow)>,
    pub updates: Vec<(&'a RowKey, &'a BarrierRow)>,
    pub deletes: Vec<&'a RowKey>,
}

/// The barrier's rows, sorted by key, so that all writes take their locks in one order.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    slots: BTreeMap<RowKey, Slot>,
}

impl Barrier {
    pub fn new(stored: impl IntoIterator<Item = (RowKey, BarrierRow)>) -> Self {
        let slot = |entry| Slot {
            stored: true,
            entry: Some(entry),
            changed: false,
        };
        Self {
            slots: stored
                .into_iter()
                .map(|(key, entry)| (key, slot(entry)))
                .collect(),
        }
    }

    pub fn get(&self, key: &RowKey) -> Option<&BarrierRow> {
        self.slots.get(key)?.entry.as_ref()
    }

    /// Returns the marks of the command's step: forward, compensation.
    pub fn marks(&self, command: &Command) -> (Option<Mark>, Option<Mark>) {
        if mutant::on(Mutant::SkipBarrier) {
            match command.direction {
                Direction::Forward => return (None, None),
                Direction::Compensation => return (Some(Mark::Done), None),
                Direction::Resolve => {}
            }
        }
        let mark = |direction| {
            self.get(&RowKey::of(command, direction))
                .map(|entry| entry.mark)
        };
        (mark(Direction::Forward), mark(Direction::Compensation))
    }

    pub fn set(&mut self, key: RowKey, entry: BarrierRow) {
        let slot = self.slots.entry(key).or_default();
        slot.entry = Some(entry);
        slot.changed = true;
    }

    pub fn clear(&mut self, key: &RowKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.entry = None;
            slot.changed = true;
        }
    }

    pub fn changes(&self) -> BarrierChanges<'_> {
        let mut changes = BarrierChanges::default();
        for (key, slot) in self.slots.iter().filter(|(_, slot)| slot.changed) {
            match (slot.stored, &slot.entry) {
                (false, Some(entry)) => changes.inserts.push((key, entry)),
                (true, Some(entry)) => changes.updates.push((key, entry)),
                (true, None) => changes.deletes.push(key),
                (false, None) => {}
            }
        }
        changes
    }
}
