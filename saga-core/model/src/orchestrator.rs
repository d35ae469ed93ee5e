//! An orchestrator: a transaction handles one batch of inputs; then its outputs are sent; then the offsets are
//! committed.
//!
//! This is written from saga-core/README.md (The rule of every consumer), orchestrator/README.md (The protocol) and
//! from reading `orchestrator::engine`, without calling it.

use crate::{
    message::{Command, Input, OperatorRequest},
    rules::Rule,
    saga::{Decisions, Saga},
};

/// The orchestrator's tables, for the one saga of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub live: Option<Saga>,
    pub history: Option<Saga>,
    /// The ids of the actions in the audit table, as bits.
    decided: u8,
    /// True if retention has deleted the saga, so that starts of its age are refused.
    pub floor: bool,
}

impl Store {
    /// Returns the row of the saga, live or ended.
    pub fn saga(&self) -> Option<&Saga> {
        self.live.as_ref().or(self.history.as_ref())
    }
}

/// A record of `saga.inputs` whose offset is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputRecord {
    pub input: Input,
    /// The version that the input made, if its position is in the saga's log; 0 otherwise.
    pub applied: u8,
}

/// The messages that a transaction has to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outputs {
    pub commands: Vec<Command>,
    /// The numbers of the events.
    pub events: Vec<u8>,
    again: bool,
}

impl Outputs {
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.events.is_empty()
    }
}

/// The position of a step's command, as far as the owner knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CommandPosition {
    /// An earlier owner sent the command, so its position is below the log's end at the takeover.
    #[default]
    Unknown,
    /// The command is decided, but its sending is not acknowledged.
    Unpublished,
    /// The number of commands up to and including this one that are not consumed yet.
    Behind(u8),
}

/// The state that an owner keeps in memory, by step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    pub positions: Vec<CommandPosition>,
    /// The number of commands in the step's topic that were unconsumed at the takeover.
    pub ends: Vec<u8>,
}

impl Memory {
    pub fn new(steps: usize) -> Self {
        Self {
            positions: vec![CommandPosition::Unknown; steps],
            ends: vec![0; steps],
        }
    }

    /// Returns true if the participant's group has consumed the command in flight.
    pub fn was_picked_up(&self, step: usize) -> bool {
        match self.positions[step] {
            CommandPosition::Unpublished => false,
            CommandPosition::Behind(commands) => commands == 0,
            CommandPosition::Unknown => self.ends[step] == 0,
        }
    }

    pub fn consumed(&mut self, step: usize, commands: usize) {
        let less = |count: u8| count.saturating_sub(u8::try_from(commands).unwrap_or(u8::MAX));
        self.ends[step] = less(self.ends[step]);
        if let CommandPosition::Behind(count) = self.positions[step] {
            self.positions[step] = CommandPosition::Behind(less(count));
        }
    }
}

/// The owner of the home partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The number of entries, from the front, in the batch whose outputs are not acknowledged.
    pub handled: u8,
    pub unsent: Outputs,
    pub memory: Memory,
}

/// An owner that has lost the partition and does not know that yet. It carries out one transaction, from read to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rival {
    /// The index of its entry in the inputs; `None` once the owner has committed an offset beyond it.
    pub index: Option<u8>,
    pub entry: InputRecord,
    pub read: Store,
}

/// The end of a rival's transaction.
pub enum RivalEnd {
    RolledBack,
    /// The transaction was committed; `lost_update` is true if it overwrote a row that it had not read.
    Committed {
        outputs: Outputs,
        lost_update: bool,
    },
}

impl Decisions<'_> {
    /// Handles entries of the log in one transaction.
    pub fn transact(self, store: &mut Store, entries: &mut [InputRecord]) -> Outputs {
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

    fn fold(self, store: &mut Store, entry: &mut InputRecord, outputs: &mut Outputs) {
        let next = match entry.input {
            Input::Start if store.saga().is_none() => {
                let forgotten = store.floor && self.rules.on(Rule::FloorOfStarts);
                (!forgotten).then(|| self.start())
            }
            Input::Action { id, request } => self.act(store, id, request),
            input
            @ (Input::Start | Input::Reply { .. } | Input::Timer { .. } | Input::Deadline) => {
                store.live.as_ref().and_then(|saga| self.apply(saga, input))
            }
        };
        let Some(next) = next else {
            self.on_not_applied(*entry, outputs);
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

    /// Applies an action once, however often it arrives.
    fn act(self, store: &mut Store, id: u8, request: OperatorRequest) -> Option<Saga> {
        let first = store.decided & (1 << id) == 0;
        store.decided |= 1 << id;
        let saga = store.live.as_ref().filter(|_| first)?;
        self.apply(saga, Input::Action { id, request })
    }

    /// Handles an input that does not apply.
    fn on_not_applied(self, entry: InputRecord, outputs: &mut Outputs) {
        if entry.applied > 0 && self.rules.on(Rule::SendAgain) {
            outputs.events.push(entry.applied);
            outputs.again = true;
        }
        if entry.applied == 0 && !self.rules.on(Rule::DuplicatesYieldNothing) {
            outputs.again = true;
        }
    }

    /// Commits the rival's transaction: writes the decision that it made on the state it had read.
    pub fn commit(self, rival: &mut Rival, store: &mut Store) -> RivalEnd {
        let read = rival.read.clone();
        let mut written = read.clone();
        let outputs = self.transact(&mut written, std::slice::from_mut(&mut rival.entry));
        if written.live == read.live && written.history == read.history {
            // The transaction writes no row of the saga, so it cannot fail.
            store.decided |= written.decided;
            return RivalEnd::Committed {
                outputs,
                lost_update: false,
            };
        }
        match (&read.live, &store.live) {
            // The insert finds a row, or the update finds none.
            (None, Some(_)) | (Some(_), None) => return RivalEnd::RolledBack,
            // A second statement finds a saga in history that has ended since the transaction's read.
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
