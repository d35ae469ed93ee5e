//! The saga's decisions, written a second time: from saga-core/README.md (Semantics), orchestrator/README.md (The
//! protocol) and from reading `saga_core::transition`, without calling it. Payloads, causes and instants are left out.

mod operator;

use crate::{
    definition::{Definition, Kind},
    message::{Command, Direction, Input, Outcome, TimerKind},
    rules::{Rule, Rules},
};

/// A command in flight, between two attempts, or given up; with its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    InFlight(u8),
    BackingOff(u8),
    UsedUp(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Waiting,
    Running(Delivery),
    Resolving(Delivery),
    Succeeded,
    Failed,
    NotDone,
    Unknown,
    Compensating(Delivery),
    Compensated,
    /// A person decided that the step is not compensated.
    CompensationSkipped,
    Skipped,
}

impl State {
    pub fn delivery(self) -> Option<(Direction, Delivery)> {
        match self {
            Self::Running(delivery) => Some((Direction::Forward, delivery)),
            Self::Resolving(delivery) => Some((Direction::Resolve, delivery)),
            Self::Compensating(delivery) => Some((Direction::Compensation, delivery)),
            Self::Waiting
            | Self::Succeeded
            | Self::Failed
            | Self::NotDone
            | Self::Unknown
            | Self::Compensated
            | Self::CompensationSkipped
            | Self::Skipped => None,
        }
    }

    fn of(direction: Direction, delivery: Delivery) -> Self {
        match direction {
            Direction::Forward => Self::Running(delivery),
            Direction::Resolve => Self::Resolving(delivery),
            Direction::Compensation => Self::Compensating(delivery),
        }
    }

    /// Returns true if the step has no effect that the saga would still compensate.
    pub fn is_clear(self) -> bool {
        matches!(
            self,
            Self::Failed
                | Self::NotDone
                | Self::Compensated
                | Self::CompensationSkipped
                | Self::Skipped
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    pub state: State,
    /// The attempt from which the policy counts: a person's retry restarts the count.
    counted_from: u8,
    /// True if the step was given up without an answer; a late success is recorded once.
    unanswered: bool,
    /// A person's decision that takes effect once the step is known not to be done.
    settling: Option<Settlement>,
    /// True if a person declared the step done.
    pub by_person: bool,
    /// True if a person decided the step although its participant did not answer.
    pub taken_on: bool,
}

/// A person's decision about a step that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Settlement {
    Completed,
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Running,
    Compensating,
    Completed,
    Compensated,
    /// A person ended the saga in its current state, or skipped one of its compensations.
    Abandoned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Saga {
    pub status: Status,
    pub steps: Vec<Step>,
    overdue: bool,
    /// The number of inputs applied so far: the number of the newest event, and the row's version.
    pub version: u8,
}

impl Saga {
    /// Returns the commands in flight. The steps of an abandoned saga keep their state, but their commands are not sent
    /// again.
    pub fn in_flight(&self) -> impl Iterator<Item = Command> {
        let is_live = !self.is_ended();
        let steps = self.steps.iter().enumerate().filter(move |_| is_live);
        steps.filter_map(|(index, step)| match step.state.delivery() {
            Some((direction, Delivery::InFlight(attempt))) => {
                Some(Command::new(index, direction, attempt))
            }
            Some((_, Delivery::BackingOff(_) | Delivery::UsedUp(_))) | None => None,
        })
    }

    pub fn is_ended(&self) -> bool {
        matches!(
            self.status,
            Status::Completed | Status::Compensated | Status::Abandoned
        )
    }

    fn is_parked_on_its_pivot(&self, definition: &Definition) -> bool {
        definition.pivot().is_some_and(|pivot| {
            matches!(
                self.steps[pivot].state,
                State::Resolving(Delivery::UsedUp(_))
            )
        })
    }

    /// Returns true if a command is used up, so that a person must decide.
    pub fn is_parked(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step.state.delivery(), Some((_, Delivery::UsedUp(_)))))
    }
}

/// Says how a saga can start compensating.
enum CompensationStart {
    Now,
    Ask(usize),
    No,
}

/// Decides about the sagas of a definition.
#[derive(Clone, Copy)]
pub struct Decisions<'a> {
    pub definition: &'a Definition,
    pub rules: Rules,
    /// The number of attempts of every retry policy.
    pub attempts: u8,
}

impl Decisions<'_> {
    pub fn start(self) -> Saga {
        let steps = self.definition.steps.iter().map(|step| Step {
            state: if step.by_starter {
                State::Succeeded
            } else {
                State::Waiting
            },
            counted_from: 1,
            unanswered: false,
            settling: None,
            by_person: false,
            taken_on: false,
        });
        let mut saga = Saga {
            status: Status::Running,
            steps: steps.collect(),
            overdue: false,
            version: 1,
        };
        self.advance(&mut saga);
        saga
    }

    /// Returns the saga after an input; `None` if the input does not apply.
    pub fn apply(self, saga: &Saga, input: Input) -> Option<Saga> {
        if saga.is_ended() {
            return None;
        }
        let mut next = saga.clone();
        match input {
            Input::Start => return None,
            Input::Reply { command, outcome } => self.reply(&mut next, command, outcome)?,
            Input::Timer { kind, command } => self.timer(&mut next, kind, command)?,
            Input::Deadline => {
                if next.overdue {
                    return None;
                }
                next.overdue = true;
                // A resolve that was in vain is not repeated for the deadline.
                if !next.is_parked_on_its_pivot(self.definition) {
                    self.turn(&mut next);
                }
            }
            // A refused action changes nothing, but it is in the log all the same.
            Input::Action { request, .. } => self.grant(&mut next, request),
        }
        self.advance(&mut next);
        next.version += 1;
        Some(next)
    }

    fn reply(self, saga: &mut Saga, command: Command, outcome: Outcome) -> Option<()> {
        let (step, kind) = (command.step(), self.definition.steps[command.step()].kind);
        match (outcome, command.direction) {
            (Outcome::Success, Direction::Forward) => Self::succeeded(saga, step),
            (Outcome::Success, Direction::Compensation) => Self::compensated(saga, step),
            (Outcome::Failure, Direction::Forward) if kind != Kind::Retriable => {
                if !matches!(
                    saga.steps[step].state,
                    State::Running(_) | State::Resolving(_)
                ) {
                    return None;
                }
                Self::not_done(saga, step, State::Failed);
                Some(())
            }
            (Outcome::Failure, Direction::Forward | Direction::Compensation) => {
                let attempt = self.current_attempt(saga, command)?;
                saga.steps[step].state = State::of(command.direction, Delivery::UsedUp(attempt));
                Some(())
            }
            (Outcome::Error, direction) => {
                let attempt = self.current_attempt(saga, command)?;
                self.attempt_ended(saga, step, direction, attempt);
                Some(())
            }
            (Outcome::NotDone, Direction::Forward | Direction::Resolve) => {
                if !matches!(saga.steps[step].state, State::Resolving(_)) {
                    return None;
                }
                Self::not_done(saga, step, State::NotDone);
                Some(())
            }
            (Outcome::Success | Outcome::Failure, Direction::Resolve)
            | (Outcome::NotDone, Direction::Compensation) => None,
        }
    }

    fn succeeded(saga: &mut Saga, step: usize) -> Option<()> {
        let unanswered = saga.steps[step].unanswered;
        match saga.steps[step].state {
            State::Running(_) | State::Resolving(_) => {
                saga.steps[step].state = State::Succeeded;
                // The participant's own result stays, whatever a person wanted to make of the step.
                saga.steps[step].settling = None;
            }
            // A late success is only recorded.
            State::Unknown
            | State::NotDone
            | State::Skipped
            | State::Compensating(_)
            | State::Compensated
            | State::CompensationSkipped
                if unanswered =>
            {
                saga.steps[step].unanswered = false;
            }
            State::Waiting
            | State::Succeeded
            | State::Failed
            | State::NotDone
            | State::Unknown
            | State::Compensating(_)
            | State::Compensated
            | State::CompensationSkipped
            | State::Skipped => return None,
        }
        Some(())
    }

    /// Handles a step that is known not to be done, now and for ever.
    fn not_done(saga: &mut Saga, step: usize, state: State) {
        if let Some(settlement) = saga.steps[step].settling.take() {
            Self::settle(saga, step, settlement);
        } else {
            saga.steps[step].state = state;
            Self::begin_compensation(saga);
        }
    }

    fn settle(saga: &mut Saga, step: usize, settlement: Settlement) {
        let step = &mut saga.steps[step];
        step.by_person = true;
        step.state = match settlement {
            Settlement::Completed => State::Succeeded,
            Settlement::Skipped => State::Skipped,
        };
    }

    fn compensated(saga: &mut Saga, step: usize) -> Option<()> {
        if !matches!(
            saga.steps[step].state,
            State::Compensating(_) | State::CompensationSkipped
        ) {
            return None;
        }
        saga.steps[step].state = State::Compensated;
        Some(())
    }

    fn current_attempt(self, saga: &Saga, command: Command) -> Option<u8> {
        match saga.steps[command.step()].state.delivery()? {
            (direction, Delivery::InFlight(attempt))
                if direction == command.direction
                    && (attempt == command.attempt || !self.rules.on(Rule::ErrorOfOwnAttempt)) =>
            {
                Some(attempt)
            }
            (_, Delivery::InFlight(_) | Delivery::BackingOff(_) | Delivery::UsedUp(_)) => None,
        }
    }

    fn timer(self, saga: &mut Saga, kind: TimerKind, command: Command) -> Option<()> {
        let (step, attempt) = (command.step(), command.attempt);
        let (direction, delivery) = saga.steps[step].state.delivery()?;
        if direction != command.direction {
            return None;
        }
        match (kind, delivery) {
            (TimerKind::Timeout, Delivery::InFlight(current)) if current == attempt => {
                let is_last = attempt + 1 - saga.steps[step].counted_from >= self.attempts;
                if direction == Direction::Resolve && is_last && !self.rules.on(Rule::AskingEnds) {
                    // The resolve is sent again with the same number, because asking for ever must be a cycle of
                    // states.
                    return None;
                }
                self.attempt_ended(saga, step, direction, attempt);
            }
            (TimerKind::Backoff, Delivery::BackingOff(current)) if current == attempt => {
                self.send(saga, step, direction, attempt + 1);
            }
            (
                TimerKind::Timeout | TimerKind::Backoff,
                Delivery::InFlight(_) | Delivery::BackingOff(_) | Delivery::UsedUp(_),
            ) => return None,
        }
        Some(())
    }

    /// Handles an attempt that ended without a decision: schedules the next attempt, or gives up if none is left.
    fn attempt_ended(self, saga: &mut Saga, step: usize, direction: Direction, attempt: u8) {
        let spent = attempt + 1 - saga.steps[step].counted_from;
        if spent >= self.attempts {
            self.give_up(saga, step, direction, attempt);
        } else {
            saga.steps[step].state = State::of(direction, Delivery::BackingOff(attempt));
        }
    }

    fn give_up(self, saga: &mut Saga, step: usize, direction: Direction, attempt: u8) {
        match (direction, self.definition.steps[step].kind) {
            (Direction::Forward, Kind::Compensatable) => Self::begin_compensation(saga),
            (Direction::Forward, Kind::Pivot) => self.ask(saga, step),
            (Direction::Resolve, _) => {
                saga.steps[step].state = State::Resolving(Delivery::UsedUp(attempt));
            }
            (Direction::Compensation, _) | (Direction::Forward, Kind::Retriable) => {
                saga.steps[step].state = if self.rules.on(Rule::UsedUpParks) {
                    State::of(direction, Delivery::UsedUp(attempt))
                } else if direction == Direction::Compensation {
                    State::Compensated
                } else {
                    State::Succeeded
                };
            }
        }
    }

    fn ask(self, saga: &mut Saga, pivot: usize) {
        if let State::Resolving(Delivery::UsedUp(attempt)) = saga.steps[pivot].state {
            saga.steps[pivot].settling = None;
            self.send_anew(saga, pivot, Direction::Resolve, attempt);
        } else if self.rules.on(Rule::ResolveFirst) {
            self.send_first(saga, pivot, Direction::Resolve);
        } else {
            // Without the rule, the pivot counts as never done.
            saga.steps[pivot].state = State::NotDone;
            Self::begin_compensation(saga);
        }
    }

    /// Starts compensating if that is possible, for the deadline or a cancel.
    fn turn(self, saga: &mut Saga) {
        match self.compensation_start(saga) {
            CompensationStart::Now => Self::begin_compensation(saga),
            CompensationStart::Ask(pivot) => self.ask(saga, pivot),
            CompensationStart::No => {}
        }
    }

    fn compensation_start(self, saga: &Saga) -> CompensationStart {
        if saga.status != Status::Running {
            return CompensationStart::No;
        }
        let Some(pivot) = self.definition.pivot() else {
            return CompensationStart::Now;
        };
        match saga.steps[pivot].state {
            State::Waiting => CompensationStart::Now,
            State::Running(_) | State::Resolving(Delivery::UsedUp(_)) => {
                CompensationStart::Ask(pivot)
            }
            State::Resolving(Delivery::InFlight(_) | Delivery::BackingOff(_))
            | State::Succeeded
            | State::Failed
            | State::NotDone
            | State::Unknown
            | State::Compensating(_)
            | State::Compensated
            | State::CompensationSkipped
            | State::Skipped => CompensationStart::No,
        }
    }

    fn begin_compensation(saga: &mut Saga) {
        for step in &mut saga.steps {
            match step.state {
                State::Waiting => step.state = State::Skipped,
                State::Running(_) | State::Resolving(_) => {
                    step.state = State::Unknown;
                    step.unanswered = true;
                    step.settling = None;
                }
                State::Succeeded
                | State::Failed
                | State::NotDone
                | State::Unknown
                | State::Compensating(_)
                | State::Compensated
                | State::CompensationSkipped
                | State::Skipped => {}
            }
        }
        saga.status = Status::Compensating;
    }

    /// Sends every command that can be sent now, and ends the saga if nothing is left.
    fn advance(self, saga: &mut Saga) {
        match saga.status {
            Status::Running => self.advance_forward(saga),
            Status::Compensating => self.advance_compensation(saga),
            Status::Completed | Status::Compensated | Status::Abandoned => {}
        }
    }

    fn advance_forward(self, saga: &mut Saga) {
        // In a saga that goes forward, only a person skips steps.
        let is_behind = |step: &Step| matches!(step.state, State::Succeeded | State::Skipped);
        for index in 0..saga.steps.len() {
            let mut before =
                (0..saga.steps.len()).filter(|before| self.definition.is_ancestor(*before, index));
            if saga.steps[index].state == State::Waiting
                && before.all(|before| is_behind(&saga.steps[before]))
            {
                self.send_first(saga, index, Direction::Forward);
            }
        }
        if saga.steps.iter().all(is_behind) {
            saga.status = Status::Completed;
        }
    }

    fn advance_compensation(self, saga: &mut Saga) {
        for index in 0..saga.steps.len() {
            let owed = matches!(saga.steps[index].state, State::Succeeded | State::Unknown)
                && self.definition.steps[index].kind == Kind::Compensatable;
            let clear = (0..saga.steps.len())
                .filter(|later| self.definition.is_ancestor(index, *later))
                .all(|later| saga.steps[later].state.is_clear());
            if owed && (clear || !self.rules.on(Rule::DescendantsFirst)) {
                self.send_first(saga, index, Direction::Compensation);
            }
        }
        if saga.steps.iter().all(|step| step.state.is_clear()) {
            let skipped = |step: &Step| step.state == State::CompensationSkipped;
            saga.status = if saga.steps.iter().any(skipped) {
                Status::Abandoned
            } else {
                Status::Compensated
            };
        }
    }

    fn send_first(self, saga: &mut Saga, step: usize, direction: Direction) {
        self.send_anew(saga, step, direction, 0);
    }

    /// Sends the attempt after `attempt`, and restarts the policy's count at it.
    fn send_anew(self, saga: &mut Saga, step: usize, direction: Direction, attempt: u8) {
        saga.steps[step].counted_from = attempt + 1;
        self.send(saga, step, direction, attempt + 1);
    }

    /// Sends an attempt. An action that is too large is not sent, and waits for a person instead. Only a person's retry,
    /// which corrects the payload, makes another attempt of it.
    fn send(self, saga: &mut Saga, step: usize, direction: Direction, attempt: u8) {
        let is_held_back = direction == Direction::Forward
            && attempt == 1
            && self.definition.steps[step].is_too_large;
        let delivery = if is_held_back {
            Delivery::UsedUp(attempt)
        } else {
            Delivery::InFlight(attempt)
        };
        saga.steps[step].state = State::of(direction, delivery);
    }
}
