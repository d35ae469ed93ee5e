//! A saga while one input is applied to it: its new state, and the events that tell what changed.

use super::{
    Outbound, Transition, after_ms,
    command::{FlightId, build, in_flight},
};
use crate::{
    definition::{CommandSpec, SagaDefinition, Step},
    ids::Timestamp,
    instance::{
        ActionVerdict, Delivery, LifecycleEvent, LifecycleKind, LogEntry, Phase, PickUp, Position,
        SagaInstance, SagaStatus, StepState, Unchanging,
    },
    message::{Direction, DuePart, Fault},
};

/// Entries a log keeps. Far more than a saga without trouble writes; a row of a saga that retries for a day
/// stays below a few hundred kilobytes.
pub(super) const MAX_LOG_ENTRIES: usize = 256;

pub(super) struct Draft<'a> {
    pub definition: &'a SagaDefinition,
    pub saga: SagaInstance,
    pub at: Timestamp,
    events: Vec<LifecycleKind>,
    /// Steps whose command is sent again with the id it had.
    pub sent_again: Vec<usize>,
    pub verdict: Option<ActionVerdict>,
}

impl<'a> Draft<'a> {
    pub fn new(definition: &'a SagaDefinition, saga: SagaInstance, at: Timestamp) -> Self {
        Self {
            definition,
            saga,
            at,
            events: Vec::new(),
            sent_again: Vec::new(),
            verdict: None,
        }
    }

    pub fn record(&mut self, kind: LifecycleKind) {
        self.events.push(kind);
    }

    pub fn step(&self, index: usize) -> &'a Step {
        &self.definition.steps[index]
    }

    pub fn state(&self, index: usize) -> &StepState {
        &self.saga.steps[index].state
    }

    pub fn set(&mut self, index: usize, state: StepState) {
        self.saga.steps[index].state = state;
    }

    pub fn part(&self, index: usize, direction: Direction, attempt: u32) -> DuePart {
        DuePart {
            step: self.step(index).name.clone(),
            direction,
            attempt,
        }
    }

    /// Sends the first attempt of one of a step's commands.
    pub fn send_first(&mut self, index: usize, direction: Direction) {
        self.saga.steps[index].counted_from = 1;
        self.send(index, direction, 1);
    }

    /// Sends an attempt: the step is in flight from now on.
    pub fn send(&mut self, index: usize, direction: Direction, attempt: u32) {
        let step = self.step(index);
        let Some(spec) = spec(step, direction) else {
            return;
        };
        let delivery = Delivery::InFlight {
            attempt,
            sent_at: self.at,
            due_at: after_ms(self.at, spec.timeout_ms),
            pick_up: PickUp::Unseen,
        };
        self.set(index, deliver(direction, delivery));
        let part = self.part(index, direction, attempt);
        self.record(LifecycleKind::CommandSent {
            part,
            command: command_type(spec, direction),
            participant: step.participant.clone(),
        });
    }

    /// Gives a command up to a person.
    pub fn park(&mut self, index: usize, direction: Direction, attempt: u32, fault: Fault) {
        self.record(LifecycleKind::Parked {
            step: self.step(index).name.clone(),
            reason: fault.clone(),
        });
        self.set(
            index,
            deliver(direction, Delivery::UsedUp { attempt, fault }),
        );
    }

    /// Tells that a step no longer needs a person, if it did.
    pub fn unpark(&mut self, index: usize, was: &Delivery) {
        if was.used_up().is_some() {
            self.record(LifecycleKind::Unparked {
                step: self.step(index).name.clone(),
            });
        }
    }

    /// The same of a step as it stands, about to be taken from that person.
    pub fn unpark_now(&mut self, index: usize) {
        let delivery = self.state(index).delivery();
        if let Some(was) = delivery.map(|(_, delivery)| delivery.clone()) {
            self.unpark(index, &was);
        }
    }

    /// Starts whatever can start now, and settles the saga's status.
    pub fn advance(&mut self) {
        let phase = self.saga.status.phase();
        let ended = match phase {
            Phase::Running => self.advance_forward(),
            Phase::Compensating => self.advance_compensation(),
        };
        self.saga.status = match (ended, phase) {
            (true, Phase::Running) => {
                self.record(LifecycleKind::Completed);
                SagaStatus::Completed
            }
            (true, Phase::Compensating) => self.went_back(),
            (false, phase) => self.unended_status(phase),
        };
    }

    /// Compensated, unless something stays done because an operator wanted it so.
    fn went_back(&mut self) -> SagaStatus {
        let skipped = self.saga.steps.iter().find_map(|step| match &step.state {
            StepState::CompensationSkipped { reason } => Some(reason.clone()),
            StepState::Waiting
            | StepState::Running(_)
            | StepState::Resolving(_)
            | StepState::Succeeded
            | StepState::Failed { .. }
            | StepState::NotDone
            | StepState::Unknown
            | StepState::Compensating(_)
            | StepState::Compensated
            | StepState::Skipped => None,
        });
        if let Some(reason) = skipped {
            self.record(LifecycleKind::Abandoned {
                reason: reason.clone(),
            });
            return SagaStatus::Abandoned { reason };
        }
        if let Some(cause) = self.saga.cause.clone() {
            self.record(LifecycleKind::Compensated { cause });
        }
        SagaStatus::Compensated
    }

    /// Parked as long as any command is used up; the step named first stays named.
    fn unended_status(&self, phase: Phase) -> SagaStatus {
        let used_up: Vec<(&str, &Fault)> = self
            .saga
            .steps
            .iter()
            .zip(&self.definition.steps)
            .filter_map(|(instance, step)| {
                let (_, delivery) = instance.state.delivery()?;
                Some((step.name.as_str(), delivery.used_up()?))
            })
            .collect();
        let named = match &self.saga.status {
            SagaStatus::Parked { step, .. } => used_up.iter().find(|(name, _)| name == step),
            SagaStatus::Running
            | SagaStatus::Compensating
            | SagaStatus::Completed
            | SagaStatus::Compensated
            | SagaStatus::Abandoned { .. } => None,
        };
        match (named.or_else(|| used_up.first()), phase) {
            (Some((step, reason)), phase) => SagaStatus::Parked {
                step: (*step).to_owned(),
                reason: (*reason).clone(),
                phase,
            },
            (None, Phase::Running) => SagaStatus::Running,
            (None, Phase::Compensating) => SagaStatus::Compensating,
        }
    }

    /// Numbers the events, writes the log entry, and finds the commands to send.
    pub fn finish(
        mut self,
        before: &[FlightId],
        position: Position,
        committed: Option<Position>,
        outbound: &Outbound,
    ) -> Transition {
        let mut events = Vec::with_capacity(self.events.len());
        for kind in self.events {
            self.saga.sequence += 1;
            events.push(LifecycleEvent {
                sequence: self.saga.sequence,
                at: self.at,
                kind,
            });
        }
        let entry = Unchanging::from(LogEntry { position, events });
        self.saga.log.push(entry.clone());
        bound_log(&mut self.saga.log, committed);
        let commands = in_flight(&self.saga)
            .into_iter()
            .filter(|flight| !before.contains(flight) || self.sent_again.contains(&flight.index))
            .filter_map(|flight| build(self.definition, &self.saga, flight, outbound))
            .collect();
        Transition {
            saga: self.saga,
            entry,
            commands,
            verdict: self.verdict,
        }
    }
}

/// Drops from the middle what can never be redelivered. The first entry (the start) and the newest stay.
fn bound_log(log: &mut Vec<Unchanging<LogEntry>>, committed: Option<Position>) {
    let Some(committed) = committed else { return };
    let mut surplus = log.len().saturating_sub(MAX_LOG_ENTRIES);
    let last = log.len().saturating_sub(1);
    let mut index = 0;
    log.retain(|entry| {
        let place = index;
        index += 1;
        let droppable = place != 0
            && place != last
            && entry.position.partition == committed.partition
            && entry.position.offset <= committed.offset;
        if surplus > 0 && droppable {
            surplus -= 1;
            return false;
        }
        true
    });
}

/// How a step's command of this direction is made. A resolve is made like the action it asks about.
pub(super) fn spec(step: &Step, direction: Direction) -> Option<&CommandSpec> {
    match direction {
        Direction::Forward | Direction::Resolve => step.action.as_ref(),
        Direction::Compensation => step.compensation.as_ref(),
    }
}

pub(super) fn command_type(spec: &CommandSpec, direction: Direction) -> String {
    match direction {
        Direction::Forward | Direction::Compensation => spec.command_type.clone(),
        Direction::Resolve => format!(
            "{}{}",
            spec.command_type,
            crate::message::Command::RESOLVE_SUFFIX
        ),
    }
}

/// The state of a step with such a command on its way.
pub(super) fn deliver(direction: Direction, delivery: Delivery) -> StepState {
    match direction {
        Direction::Forward => StepState::Running(delivery),
        Direction::Resolve => StepState::Resolving(delivery),
        Direction::Compensation => StepState::Compensating(delivery),
    }
}
