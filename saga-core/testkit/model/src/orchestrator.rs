//! An orchestrator: one batch of inputs is one transaction, then what follows from it, then the offsets.
//!
//! Written down from DESIGN.md sections 2 and 4 and from reading `orchestrator::engine`, without calling it.

use crate::{
    message::{Command, Input, Wish},
    rules::Rule,
    saga::{Decisions, Saga},
};

/// The orchestrator's tables, for the one saga of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub live: Option<Saga>,
    pub history: Option<Saga>,
    /// Ids of the actions in the audit table.
    decided: u8,
    /// Retention has forgotten the saga, and nothing that old is started any more.
    pub floor: bool,
}

impl Store {
    /// The row of the saga, wherever it stands.
    pub fn saga(&self) -> Option<&Saga> {
        self.live.as_ref().or(self.history.as_ref())
    }
}

/// A record of `saga.inputs` whose offset is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub input: Input,
    /// The version that it made, if its position stands in the saga's log; 0 otherwise.
    pub applied: u8,
}

/// What a transaction has to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outputs {
    pub commands: Vec<Command>,
    /// Numbers of events.
    pub events: Vec<u8>,
    again: bool,
}

impl Outputs {
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.events.is_empty()
    }
}

/// Where the owner knows a command of a step to stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// An owner before it has sent the command, so it stands below the log's end at the takeover.
    #[default]
    Unknown,
    /// Decided, not acknowledged.
    Unpublished,
    /// So many commands are to be consumed until it is.
    Behind(u8),
}

/// What an owner keeps in memory, by step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    pub places: Vec<Place>,
    /// So many commands stood unconsumed in the step's topic at the takeover.
    pub ends: Vec<u8>,
}

impl Memory {
    pub fn new(steps: usize) -> Self {
        Self {
            places: vec![Place::Unknown; steps],
            ends: vec![0; steps],
        }
    }

    /// The group of a step's participant has passed the command in flight.
    pub fn was_picked_up(&self, step: usize) -> bool {
        match self.places[step] {
            Place::Unpublished => false,
            Place::Behind(commands) => commands == 0,
            Place::Unknown => self.ends[step] == 0,
        }
    }

    pub fn consumed(&mut self, step: usize, commands: usize) {
        let less = |count: u8| count.saturating_sub(u8::try_from(commands).unwrap_or(u8::MAX));
        self.ends[step] = less(self.ends[step]);
        if let Place::Behind(count) = self.places[step] {
            self.places[step] = Place::Behind(less(count));
        }
    }
}

/// The owner of the home partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Entries, from the front, in the batch whose outputs are not acknowledged.
    pub handled: u8,
    pub unsent: Outputs,
    pub memory: Memory,
}

/// An owner that has lost the partition and does not know it yet: one transaction, from its reading to its writing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rival {
    /// Place of its entry in the inputs; `None` once the owner has committed beyond it.
    pub index: Option<u8>,
    pub entry: Entry,
    pub read: Store,
}

/// What became of a rival's transaction.
pub enum RivalEnd {
    RolledBack,
    /// Committed; whether over a row that it had not read.
    Committed {
        outputs: Outputs,
        lost_update: bool,
    },
}

impl Decisions<'_> {
    /// One transaction over entries of the log.
    pub fn transact(self, store: &mut Store, entries: &mut [Entry]) -> Outputs {
        let mut outputs = Outputs::default();
        for entry in entries {
            self.fold(store, entry, &mut outputs);
        }
        if outputs.again
            && let Some(saga) = &store.live
        {
            for command in saga.in_flight() {
                if !outputs.commands.contains(&command) {
                    outputs.commands.push(command);
                }
            }
        }
        outputs.again = false;
        outputs
    }

    fn fold(self, store: &mut Store, entry: &mut Entry, outputs: &mut Outputs) {
        let next = match entry.input {
            Input::Start if store.saga().is_none() => {
                let forgotten = store.floor && self.rules.on(Rule::FloorOfStarts);
                (!forgotten).then(|| self.start())
            }
            Input::Action { id, wish } => self.act(store, id, wish),
            input
            @ (Input::Start | Input::Reply { .. } | Input::Timer { .. } | Input::Deadline) => {
                store.live.as_ref().and_then(|saga| self.apply(saga, input))
            }
        };
        let Some(next) = next else {
            self.again(*entry, outputs);
            return;
        };
        let before: Vec<Command> = store.live.iter().flat_map(Saga::in_flight).collect();
        let sent = next.in_flight().filter(|command| !before.contains(command));
        outputs.commands.extend(sent);
        outputs.events.push(next.version);
        entry.applied = next.version;
        if next.is_ended() {
            (store.live, store.history) = (None, Some(next));
        } else {
            store.live = Some(next);
        }
    }

    /// Decided once, whatever arrives how often.
    fn act(self, store: &mut Store, id: u8, wish: Wish) -> Option<Saga> {
        let first = store.decided & (1 << id) == 0;
        store.decided |= 1 << id;
        let saga = store.live.as_ref().filter(|_| first)?;
        self.apply(saga, Input::Action { id, wish })
    }

    /// An input that does not apply.
    fn again(self, entry: Entry, outputs: &mut Outputs) {
        if entry.applied > 0 && self.rules.on(Rule::SendAgain) {
            outputs.events.push(entry.applied);
            outputs.again = true;
        }
        if entry.applied == 0 && !self.rules.on(Rule::DuplicatesYieldNothing) {
            outputs.again = true;
        }
    }

    /// The rival writes what it decided on what it had read.
    pub fn commit(self, rival: &mut Rival, store: &mut Store) -> RivalEnd {
        let read = rival.read.clone();
        let mut written = read.clone();
        let outputs = self.transact(&mut written, std::slice::from_mut(&mut rival.entry));
        if written.live == read.live && written.history == read.history {
            // No row of the saga to write, so nothing that could fail.
            store.decided |= written.decided;
            return RivalEnd::Committed {
                outputs,
                lost_update: false,
            };
        }
        match (&read.live, &store.live) {
            // The insert finds the row; the update, none.
            (None, Some(_)) | (Some(_), None) => return RivalEnd::RolledBack,
            // A following statement finds in history what has ended since the reading.
            (None, None) if store.history.is_some() && self.rules.on(Rule::HistoryAfterLive) => {
                return RivalEnd::RolledBack;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let lost_update = read.live != store.live;
        if lost_update && self.rules.on(Rule::Version) {
            return RivalEnd::RolledBack;
        }
        store.live = written.live;
        store.history = written.history.or_else(|| store.history.take());
        store.decided |= written.decided;
        RivalEnd::Committed {
            outputs,
            lost_update,
        }
    }
}
