//! A participant: its command topic, the barrier, its effects, and its external calls.
//!
//! This is written from saga-core/README.md (The barrier) and from reading `saga_messaging::participant`, without
//! calling it. A transaction is one step of the model; a batch is a fold over the commands in their order.

use crate::{
    definition::{Kind, Step},
    message::{Command, Direction, Input, Outcome},
    rules::{Rule, Rules},
};

/// The mark of the forward row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    Pending,
    Done,
    Failed,
    Refused,
    /// An error that was saved. It exists only where [`Rule::ErrorUnsaved`] is knocked out.
    Errored,
}

/// An intent: an external call that is open, or settled with replies that are not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    command: Command,
    cancel: Option<Command>,
    resolve: Option<Command>,
    /// The external system's decision under the key, once it was called.
    pub outcome: Option<Outcome>,
}

/// The outcome of a handler that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    Succeed,
    Fail,
    Err,
    /// An external call decides the outcome.
    CallOutside,
}

/// The barrier's decision about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Run,
    Saved(Outcome),
    CompensatedAlready,
    CompensateEmpty,
    RefuseAndCompensate,
    RefuseAndAnswerNotDone,
    AnswerNotDone,
    Wait,
    BelowFloor,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Participant {
    /// Commands whose offset is not committed.
    pub log: Vec<Command>,
    /// The number of commands, from the front, in the batch whose replies are not acknowledged yet.
    pub handled: u8,
    pub unsent: Vec<Input>,
    pub forward: Option<Mark>,
    pub compensated: bool,
    pub call: Option<Call>,
    /// Replies of a settled call, until they are acknowledged.
    pub answers: Vec<Input>,
    /// True if the participant works but none of its replies ever arrives again.
    pub is_silent: bool,
    /// True if the rows are deleted and the saga is below the participant's own floor.
    pub below_floor: bool,
    /// The number of times that the action had its effect; `undone` counts its compensation.
    pub done: u8,
    pub undone: u8,
    /// The commands that were ever in the log, as bits, for the checks only.
    delivered: u32,
}

/// The step and the rules that a participant's transaction depends on.
#[derive(Clone, Copy)]
pub struct Handling<'a> {
    pub step: &'a Step,
    pub rules: Rules,
}

impl Participant {
    pub fn new(step: &Step, rules: Rules) -> Self {
        let by_starter = step.by_starter;
        Self {
            log: Vec::new(),
            handled: 0,
            unsent: Vec::new(),
            forward: (by_starter && rules.on(Rule::StarterRecord)).then_some(Mark::Done),
            compensated: false,
            call: None,
            answers: Vec::new(),
            is_silent: false,
            below_floor: false,
            done: u8::from(by_starter),
            undone: 0,
            delivered: 0,
        }
    }

    /// Appends a command to the log. Returns true if the log had the command before.
    pub fn deliver(&mut self, command: Command) -> bool {
        let is_copy = self.was_delivered(command);
        self.delivered |= bit(command);
        self.log.push(command);
        is_copy
    }

    pub fn was_delivered(&self, command: Command) -> bool {
        self.delivered & bit(command) != 0
    }

    /// Commits the offsets of the handled commands, and returns their number.
    pub fn commit(&mut self) -> usize {
        let handled = usize::from(std::mem::take(&mut self.handled));
        self.log.drain(..handled);
        handled
    }

    /// Deletes the rows, as retention does, and moves the participant's own floor in the same transaction.
    pub fn forget(&mut self) {
        self.below_floor = true;
        self.forward = None;
        self.compensated = false;
    }

    pub fn is_open(&self) -> bool {
        self.call.is_some() || !self.answers.is_empty()
    }
}

impl Handling<'_> {
    /// Returns true if the handler of this command runs, so that its outcome is open.
    pub fn runs(self, participant: &Participant, command: Command) -> bool {
        self.admit(participant, command) == Admission::Run
    }

    pub fn may_call_outside(self, command: Command) -> bool {
        command.direction == Direction::Forward && self.step.kind != Kind::Retriable
    }

    /// Handles one command of a batch. `choice` counts if the handler runs. Returns `None` if the command is answered
    /// on settlement, or not at all.
    pub fn handle(
        self,
        participant: &mut Participant,
        command: Command,
        choice: Choice,
    ) -> Option<Input> {
        let reply = |direction, outcome| Some(command.answered(direction, outcome));
        match self.admit(participant, command) {
            Admission::Run => self.run(participant, command, choice),
            Admission::Saved(outcome) => self
                .rules
                .on(Rule::SavedReply)
                .then(|| command.answered(Direction::Forward, outcome)),
            Admission::CompensatedAlready => reply(Direction::Compensation, Outcome::Success),
            Admission::CompensateEmpty => {
                participant.compensated = true;
                reply(Direction::Compensation, Outcome::Success)
            }
            Admission::RefuseAndCompensate => {
                if self.rules.on(Rule::RefusedByCompensation) {
                    participant.forward = Some(Mark::Refused);
                }
                participant.compensated = true;
                reply(Direction::Compensation, Outcome::Success)
            }
            Admission::RefuseAndAnswerNotDone => {
                if self.rules.on(Rule::RefusedByResolve) {
                    participant.forward = Some(Mark::Refused);
                }
                reply(command.direction, Outcome::NotDone)
            }
            Admission::AnswerNotDone => reply(command.direction, Outcome::NotDone),
            Admission::Wait => {
                Self::wait(participant, command);
                None
            }
            Admission::BelowFloor => reply(command.direction, Outcome::Error),
        }
    }

    fn admit(self, participant: &Participant, command: Command) -> Admission {
        if participant.below_floor && self.rules.on(Rule::FloorOfCommands) {
            return Admission::BelowFloor;
        }
        let saved = |mark| match mark {
            Mark::Pending => Admission::Wait,
            Mark::Done => Admission::Saved(Outcome::Success),
            Mark::Failed => Admission::Saved(Outcome::Failure),
            Mark::Errored => Admission::Saved(Outcome::Error),
            Mark::Refused => Admission::AnswerNotDone,
        };
        match (command.direction, participant.forward) {
            (Direction::Forward, None) => {
                if participant.compensated && self.rules.on(Rule::RefusedByCompensation) {
                    Admission::RefuseAndAnswerNotDone
                } else {
                    Admission::Run
                }
            }
            (Direction::Forward, Some(Mark::Done | Mark::Failed | Mark::Errored))
                if !self.rules.on(Rule::Dedupe) =>
            {
                Admission::Run
            }
            (Direction::Resolve, None) => Admission::RefuseAndAnswerNotDone,
            (Direction::Forward | Direction::Resolve, Some(mark)) => saved(mark),
            (Direction::Compensation, forward) => self.admit_compensation(participant, forward),
        }
    }

    fn admit_compensation(self, participant: &Participant, forward: Option<Mark>) -> Admission {
        if participant.compensated && self.rules.on(Rule::Dedupe) {
            return Admission::CompensatedAlready;
        }
        match forward {
            None => Admission::RefuseAndCompensate,
            Some(Mark::Pending) if self.rules.on(Rule::PendingWaits) => Admission::Wait,
            Some(Mark::Done) => Admission::Run,
            Some(Mark::Pending | Mark::Failed | Mark::Refused | Mark::Errored) => {
                Admission::CompensateEmpty
            }
        }
    }

    fn run(self, participant: &mut Participant, command: Command, choice: Choice) -> Option<Input> {
        let outcome = match choice {
            Choice::CallOutside => {
                participant.forward = Some(Mark::Pending);
                // Replies of an earlier call that was given up are dropped: the next attempt sends them.
                participant.answers.clear();
                participant.call = Some(Call {
                    command,
                    cancel: None,
                    resolve: None,
                    outcome: None,
                });
                return None;
            }
            Choice::Succeed => Outcome::Success,
            Choice::Fail => Outcome::Failure,
            Choice::Err => Outcome::Error,
        };
        match command.direction {
            Direction::Forward => {
                participant.done += u8::from(outcome == Outcome::Success);
                self.save(participant, outcome);
            }
            Direction::Compensation if outcome == Outcome::Success => {
                participant.undone += 1;
                participant.compensated = true;
            }
            Direction::Compensation | Direction::Resolve => {}
        }
        Some(command.answered(command.direction, outcome))
    }

    /// Writes the mark that the forward row keeps of an outcome.
    fn save(self, participant: &mut Participant, outcome: Outcome) {
        let saves_failure =
            self.step.kind != Kind::Retriable || !self.rules.on(Rule::ParkingFailureUnsaved);
        participant.forward = match outcome {
            Outcome::Success => Some(Mark::Done),
            Outcome::Failure if saves_failure => Some(Mark::Failed),
            Outcome::Error if !self.rules.on(Rule::ErrorUnsaved) => Some(Mark::Errored),
            Outcome::Failure | Outcome::Error | Outcome::NotDone => None,
        };
    }

    /// Notes a command with the open call.
    fn wait(participant: &mut Participant, command: Command) {
        let Some(call) = &mut participant.call else {
            return;
        };
        let latest = |waiting: &mut Option<Command>| {
            if waiting.is_none_or(|other| command.attempt >= other.attempt) {
                *waiting = Some(command);
            }
        };
        match command.direction {
            Direction::Forward => call.command.attempt = call.command.attempt.max(command.attempt),
            Direction::Compensation => latest(&mut call.cancel),
            Direction::Resolve => latest(&mut call.resolve),
        }
    }

    /// Makes the call. A repeated call with the same key has no second effect.
    pub fn call_outside(self, participant: &mut Participant, outcome: Outcome) {
        if let Some(call) = &mut participant.call {
            call.outcome = Some(outcome);
            participant.done += u8::from(outcome == Outcome::Success);
        }
    }

    /// Settles the call in one transaction: first the outcome, then the commands that waited, as if they arrived now.
    pub fn settle(self, participant: &mut Participant) {
        let Some(call) = participant.call.take() else {
            return;
        };
        let outcome = call.outcome.unwrap_or(Outcome::Error);
        self.save(participant, outcome);
        let mut answers = vec![call.command.answered(Direction::Forward, outcome)];
        for command in call.resolve.into_iter().chain(call.cancel) {
            answers.extend(self.handle(participant, command, Choice::Succeed));
        }
        participant.answers = answers;
    }
}

fn bit(command: Command) -> u32 {
    const ATTEMPTS: u32 = 10;
    let row = match command.direction {
        Direction::Forward => 0,
        Direction::Compensation => 1,
        Direction::Resolve => 2,
    };
    1 << (row * ATTEMPTS + u32::from(command.attempt).min(ATTEMPTS) - 1)
}
