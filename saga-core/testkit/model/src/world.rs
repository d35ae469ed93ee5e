//! Everything there is, and what can happen to it.

use crate::{
    definition::Definition,
    message::{Command, Direction, Input, Outcome, TimerKind},
    orchestrator::{Entry, Memory, Owner, Rival, Store},
    participant::{Choice, Participant},
    rest::Rest,
    rules::Rules,
    saga::Decisions,
};

/// How often each kind of trouble may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// A process dies between its commit and the commit of its offsets.
    pub crashes: u8,
    /// An acknowledgment, or the answer of a commit, is lost, and the batch runs again.
    pub lost_answers: u8,
    /// A record stands in its log once more.
    pub duplicates: u8,
    /// An owner that has lost the partition carries out a transaction.
    pub rivals: u8,
    /// A handler answers `error`.
    pub errors: u8,
    /// A handler answers `failure`.
    pub failures: u8,
    /// An action calls the outside.
    pub calls: u8,
    pub cancels: u8,
    pub deadlines: u8,
    /// A person retries a parked saga.
    pub retries: u8,
    /// A person completes, skips or abandons.
    pub settlements: u8,
    /// Retention forgets the saga.
    pub retirements: u8,
}

impl Budget {
    /// Nothing but a duplicate makes a record stand in a log twice.
    pub fn only_duplicates(self) -> bool {
        self.crashes + self.lost_answers + self.rivals == 0
    }
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub definition: &'static Definition,
    /// Attempts of every retry policy.
    pub attempts: u8,
    /// Records a transaction at most.
    pub batch: usize,
    /// What was not acknowledged before a crash may stand in its log later.
    pub late_produce: bool,
    pub budget: Budget,
    pub rules: Rules,
}

/// A scenario with what its exploration remembers.
pub struct System {
    pub scenario: Scenario,
    pub rest: Rest,
}

impl System {
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            rest: Rest::default(),
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

/// What only the checks look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Witness {
    /// A row was written over one that had not been read.
    pub lost_update: bool,
    /// Something happened that may make a saga turn round, or need a person.
    pub has_cause: bool,
    /// Bit n: event n + 1 was told.
    pub told: u32,
    /// Commands that were sent more than once; counted where duplicates are the only reason for it.
    pub copies: u8,
}

/// One state of the whole system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub inputs: Vec<Entry>,
    pub store: Store,
    pub owner: Owner,
    pub rival: Option<Rival>,
    pub participants: Vec<Participant>,
    /// Sent before a crash and not acknowledged; in order, each once.
    pub late: Vec<Late>,
    /// Records that can be duplicated; empty when none will be any more, so that equal futures are equal states.
    pub past: Vec<Late>,
    pub budget: Budget,
    pub witness: Witness,
    counts_copies: bool,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The owner's transaction over so many inputs.
    Decide {
        records: usize,
    },
    /// Its outputs are acknowledged, and its offsets committed.
    Publish,
    /// It dies before that; what it had sent has arrived, or not (yet).
    OwnerCrashes {
        arrived: bool,
    },
    /// It does not learn that its commit, or its sending, succeeded.
    OwnerRepeats {
        arrived: bool,
    },
    /// Only where offsets are committed first: it dies behind that.
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
    /// A participant's transaction over as many commands as there are choices.
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
    Arrives(Late),
    Duplicate(Late),
    Ask(Input),
    /// Retention forgets the saga at the orchestrator, and at a participant.
    Forget,
    ParticipantForgets {
        step: usize,
    },
}

/// A resolve is repeated without limit; the model stops at this many, since more is more of the same.
const RESOLVES: u8 = 2;

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
            witness: Witness::default(),
            counts_copies: scenario.budget.only_duplicates(),
        };
        world.append(Input::Start);
        world
    }

    /// A record stands in `saga.inputs` from now on.
    pub fn append(&mut self, input: Input) {
        self.inputs.push(Entry { input, applied: 0 });
        self.remember(Late::Input(input));
    }

    /// A command stands in its topic from now on.
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

    /// Without duplicates to come, what was sent does not tell two states apart.
    pub fn forget_the_past(&mut self) {
        if self.budget.duplicates == 0 {
            self.past.clear();
        }
    }

    /// May still arrive.
    pub fn delay(&mut self, record: Late) {
        if let Err(place) = self.late.binary_search(&record) {
            self.late.insert(place, record);
        }
    }

    /// The timer that is armed for a step: a command in flight or a delay.
    pub fn timer(&self, step: usize) -> Option<Input> {
        use crate::saga::Delivery;
        let saga = self.store.live.as_ref()?;
        let (direction, delivery) = saga.steps[step].state.delivery()?;
        let (kind, attempt) = match delivery {
            Delivery::InFlight(attempt)
                if direction == Direction::Resolve && attempt >= RESOLVES =>
            {
                return None;
            }
            Delivery::InFlight(attempt) => (TimerKind::Timeout, attempt),
            Delivery::BackingOff(attempt) => (TimerKind::Backoff, attempt),
            Delivery::UsedUp(_) => return None,
        };
        let command = Command::new(step, direction, attempt);
        Some(Input::Timer { kind, command })
    }

    /// Whether the saga is over, for good or until a person comes.
    pub fn is_at_an_end(&self) -> bool {
        match &self.store.live {
            Some(saga) => saga.is_parked(),
            None => self.store.history.is_some() || self.store.floor,
        }
    }
}
