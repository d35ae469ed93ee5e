//! The state of the whole system, and the events that can happen to it.

use crate::{
    definition::Definition,
    known_ends::KnownEnds,
    message::{Command, Input, Outcome, TimerKind},
    orchestrator::{InputRecord, Memory, Owner, Rival, Store},
    participant::{Choice, Participant},
    rules::Rules,
    saga::Decisions,
};

/// The number of times that each kind of trouble may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// A process crashes between its commit and the commit of its offsets.
    pub crashes: u8,
    /// An acknowledgment of a commit or of sending is lost, and the batch runs again.
    pub lost_answers: u8,
    /// A record is appended to its log once more.
    pub duplicates: u8,
    /// An owner that has lost the partition carries out a transaction.
    pub rivals: u8,
    /// A handler answers `error`.
    pub errors: u8,
    /// A handler answers `failure`.
    pub failures: u8,
    /// An action makes an external call.
    pub calls: u8,
    pub cancels: u8,
    pub deadlines: u8,
    /// A person retries a parked saga.
    pub retries: u8,
    /// A person completes, skips or abandons.
    pub settlements: u8,
    /// A participant stops replying.
    pub silences: u8,
    /// Retention deletes the saga.
    pub retirements: u8,
}

impl Budget {
    /// Returns true if only duplicates can put a record into a log twice.
    pub fn only_duplicates(self) -> bool {
        self.crashes + self.lost_answers + self.rivals == 0
    }
}

/// A scenario to explore.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub definition: &'static Definition,
    /// The number of attempts of every retry policy.
    pub attempts: u8,
    /// The maximum number of records in a transaction.
    pub batch: usize,
    /// True if a record that was not acknowledged before a crash may reach its log later.
    pub late_produce: bool,
    pub budget: Budget,
    pub rules: Rules,
}

/// A scenario with the memory of its exploration.
pub struct System {
    pub scenario: Scenario,
    pub known_ends: KnownEnds,
}

impl System {
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            known_ends: KnownEnds::default(),
        }
    }

    pub fn decisions(&self) -> Decisions<'_> {
        Decisions {
            definition: self.scenario.definition,
            rules: self.scenario.rules,
            attempts: self.scenario.attempts,
        }
    }
}

/// A record that may still reach its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Late {
    Input(Input),
    Command(Command),
}

/// Facts that only the checks read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// A row was overwritten that had not been read.
    pub lost_update: bool,
    /// Something happened that may make a saga compensate or park.
    pub has_cause: bool,
    /// Bit n is set if event n + 1 was sent.
    pub told: u32,
    /// The number of commands that were sent more than once. It is counted only where duplicates are the only reason
    /// for that.
    pub copies: u8,
}

/// One state of the whole system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub inputs: Vec<InputRecord>,
    pub store: Store,
    pub owner: Owner,
    pub rival: Option<Rival>,
    pub participants: Vec<Participant>,
    /// Records that were sent before a crash and not acknowledged; sorted, each once.
    pub late: Vec<Late>,
    /// Records that can be duplicated. Empty when no duplicate can come any more, so that equal futures are equal
    /// states.
    pub past: Vec<Late>,
    pub budget: Budget,
    pub witness: Witness,
    counts_copies: bool,
}

/// An event that can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The owner carries out a transaction over this many inputs.
    Decide {
        records: usize,
    },
    /// The owner's outputs are acknowledged, and its offsets committed.
    Publish,
    /// The owner crashes before its outputs are acknowledged. If `arrived`, they have arrived; else they arrive later
    /// or never.
    OwnerCrashes {
        arrived: bool,
    },
    /// The owner does not learn that its commit, or its sending, succeeded.
    OwnerRepeats {
        arrived: bool,
    },
    /// The owner crashes after committing offsets. It happens only if offsets are committed first.
    OwnerCrashesBefore {
        records: usize,
    },
    RivalReads {
        index: usize,
    },
    RivalCommits,
    TimerFires {
        step: usize,
    },
    /// A participant carries out a transaction over as many commands as there are choices.
    Handle {
        step: usize,
        choices: Vec<Choice>,
    },
    Answer {
        step: usize,
    },
    ParticipantCrashes {
        step: usize,
        arrived: bool,
    },
    CallOutside {
        step: usize,
        outcome: Outcome,
    },
    Settle {
        step: usize,
    },
    /// The replies of a settled call are acknowledged, or only sent.
    AnswerSettled {
        step: usize,
        acknowledged: bool,
    },
    FallsSilent {
        step: usize,
    },
    Arrives(Late),
    Duplicate(Late),
    Ask(Input),
    /// Retention deletes the saga at the orchestrator. `ParticipantForgets` is the same at a participant.
    Forget,
    ParticipantForgets {
        step: usize,
    },
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let steps = scenario.definition.steps;
        let mut world = Self {
            inputs: Vec::new(),
            store: Store::default(),
            owner: Owner {
                handled: 0,
                unsent: crate::orchestrator::Outputs::default(),
                memory: Memory::new(steps.len()),
            },
            rival: None,
            participants: steps
                .iter()
                .map(|step| Participant::new(step, scenario.rules))
                .collect(),
            late: Vec::new(),
            past: Vec::new(),
            budget: scenario.budget,
            witness: Witness {
                has_cause: steps.iter().any(|step| step.is_too_large),
                ..Witness::default()
            },
            counts_copies: scenario.budget.only_duplicates(),
        };
        world.append(Input::Start);
        world
    }

    /// Appends a record to `saga.inputs`.
    pub fn append(&mut self, input: Input) {
        self.inputs.push(InputRecord { input, applied: 0 });
        self.remember(Late::Input(input));
    }

    /// Appends a command to its topic.
    pub fn deliver(&mut self, command: Command) {
        let is_copy = self.participants[command.step()].deliver(command);
        self.witness.copies += u8::from(is_copy && self.counts_copies);
        self.remember(Late::Command(command));
    }

    pub fn arrive(&mut self, record: Late) {
        match record {
            Late::Input(input) => self.append(input),
            Late::Command(command) => self.deliver(command),
        }
    }

    fn remember(&mut self, record: Late) {
        if self.budget.duplicates > 0
            && let Err(place) = self.past.binary_search(&record)
        {
            self.past.insert(place, record);
        }
    }

    /// Clears the past if no duplicates can come, because then it must not distinguish two states.
    pub fn forget_the_past(&mut self) {
        if self.budget.duplicates == 0 {
            self.past.clear();
        }
    }

    /// Adds a record that may still arrive.
    pub fn delay(&mut self, record: Late) {
        if let Err(place) = self.late.binary_search(&record) {
            self.late.insert(place, record);
        }
    }

    /// Returns the timer that is armed for a step: of a command in flight, or of a delay.
    pub fn timer(&self, step: usize) -> Option<Input> {
        use crate::saga::Delivery;
        let saga = self.store.live.as_ref()?;
        let (direction, delivery) = saga.steps[step].state.delivery()?;
        let (kind, attempt) = match delivery {
            Delivery::InFlight(attempt) => (TimerKind::Timeout, attempt),
            Delivery::BackingOff(attempt) => (TimerKind::Backoff, attempt),
            Delivery::UsedUp(_) => return None,
        };
        let command = Command::new(step, direction, attempt);
        Some(Input::Timer { kind, command })
    }

    /// Returns true if the saga has ended, or is parked until a person acts.
    pub fn is_at_an_end(&self) -> bool {
        match &self.store.live {
            Some(saga) => saga.is_parked(),
            None => self.store.history.is_some() || self.store.floor,
        }
    }
}
