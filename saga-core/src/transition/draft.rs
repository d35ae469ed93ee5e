//! A saga while one input is applied to it: its new state, and the events that describe the change.

use super::command::{
    CommandContext, FlightId, OutgoingCommand, TooLarge, build, command_type, in_flight, spec,
};
use crate::{
    definition::{SagaDefinition, Step},
    ids::Timestamp,
    instance::{
        ActionVerdict, Delivery, LifecycleEvent, LifecycleKind, LogEntry, Phase, PickUp, Position,
        SagaInstance, SagaStatus, SharedJson, StepState,
    },
    message::{CommandRef, Direction, Fault},
};
use chrono::TimeDelta;

/// The number of entries that a log keeps. A saga without trouble writes far fewer. The row of a saga that retries for
/// a day stays below a few hundred kilobytes.
pub(super) const MAX_LOG_ENTRIES: usize = 256;

/// The result of applying an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub saga: SagaInstance,
    /// The last entry of `saga.log`; it holds the events of this input.
    pub entry: SharedJson<LogEntry>,
    /// Commands that are in flight now and were not in flight before.
    pub commands: Vec<OutgoingCommand>,
    /// The decision about an operator's action; `None` for any other input.
    pub verdict: Option<ActionVerdict>,
}

/// Says why an input did not apply. This is not an error: replies are duplicated and come late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// The step has moved on, the saga has ended, or the input is a [`redelivery`].
    Stale,
    /// There is no step of that name, or no command could have this reply. The orchestrator counts and logs it.
    Unknown,
}

pub(super) struct Draft<'a> {
    pub definition: &'a SagaDefinition,
    pub saga: SagaInstance,
    pub at: Timestamp,
    context: &'a CommandContext,
    events: Vec<LifecycleKind>,
    commands: Vec<(FlightId, OutgoingCommand)>,
    pub verdict: Option<ActionVerdict>,
}

impl<'a> Draft<'a> {
    pub fn new(
        definition: &'a SagaDefinition,
        saga: SagaInstance,
        at: Timestamp,
        context: &'a CommandContext,
    ) -> Self {
        Self {
            definition,
            saga,
            at,
            context,
            events: Vec::new(),
            commands: Vec::new(),
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
        let step = &mut self.saga.steps[index];
        if state.delivery().is_none() {
            step.waiting_since = None;
        }
        step.state = state;
    }

    pub fn part(&self, index: usize, direction: Direction, attempt: u32) -> CommandRef {
        CommandRef {
            step: self.step(index).name.clone(),
            direction,
            attempt,
        }
    }

    /// Sends the first attempt of one of a step's commands.
    pub fn send_first(&mut self, index: usize, direction: Direction) {
        self.send_anew(index, direction, 0);
    }

    /// Sends the attempt after `attempt`, and restarts the retry policy's count at it.
    pub fn send_anew(&mut self, index: usize, direction: Direction, attempt: u32) {
        let step = &mut self.saga.steps[index];
        step.counted_from = attempt + 1;
        step.waiting_since = Some(self.at);
        self.send(index, direction, attempt + 1);
    }

    /// Sends an attempt: the step is in flight from now on. If the command is too large to be sent, parks the saga on it
    /// instead.
    pub fn send(&mut self, index: usize, direction: Direction, attempt: u32) {
        let step = self.step(index);
        let Some(spec) = spec(step, direction) else {
            return;
        };
        let flight = FlightId {
            index,
            direction,
            attempt,
        };
        match build(self.definition, &self.saga, flight, self.context) {
            None => {}
            Some(Ok(command)) => {
                let delivery = Delivery::InFlight {
                    attempt,
                    sent_at: self.at,
                    due_at: after_ms(self.at, spec.timeout_ms),
                    pick_up: PickUp::Unseen,
                };
                self.set(index, deliver(direction, delivery));
                self.record(LifecycleKind::CommandSent {
                    part: self.part(index, direction, attempt),
                    command: command.command.command_type.clone(),
                    participant: step.participant.clone(),
                });
                self.commands.push((flight, command));
            }
            Some(Err(TooLarge { payload_bytes })) => {
                let command = command_type(spec, direction);
                let message = format!(
                    "the payload of {command} has {payload_bytes} bytes, more than the broker takes"
                );
                let fault = Fault::new("payload_too_large", message);
                self.park(index, direction, attempt, fault);
            }
        }
    }

    /// Parks the saga on a command: a person must decide.
    pub fn park(&mut self, index: usize, direction: Direction, attempt: u32, fault: Fault) {
        self.record(LifecycleKind::Parked {
            step: self.step(index).name.clone(),
            reason: fault.clone(),
        });
        let why = fault.code.clone();
        self.set(
            index,
            deliver(direction, Delivery::UsedUp { attempt, fault }),
        );
        if direction == Direction::Resolve {
            self.nobody_says(index, &why);
        }
    }

    /// Records that a step no longer needs a person, if its delivery `was` used up.
    pub fn unpark(&mut self, index: usize, was: &Delivery) {
        if was.used_up().is_some() {
            self.record(LifecycleKind::Unparked {
                step: self.step(index).name.clone(),
            });
        }
    }

    /// Records that a step no longer needs a person, if its current delivery is used up.
    pub fn unpark_now(&mut self, index: usize) {
        let delivery = self.state(index).delivery();
        if let Some(was) = delivery.map(|(_, delivery)| delivery.clone()) {
            self.unpark(index, &was);
        }
    }

    /// Sends every command that can be sent now, and updates the saga's status.
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

    /// Returns the final status of a saga without anything left to compensate: abandoned if an operator skipped a
    /// compensation, compensated otherwise.
    fn went_back(&mut self) -> SagaStatus {
        let skipped = self.saga.steps.iter().find_map(|step| {
            if let StepState::CompensationSkipped { reason } = &step.state {
                Some(reason.clone())
            } else {
                None
            }
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

    /// Returns parked while any command is used up. A step that the parked status names stays named.
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
        let parked_on = self.saga.status.parked().map(|(step, _)| step);
        let named = used_up.iter().find(|(name, _)| Some(*name) == parked_on);
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

    /// Numbers the events, writes the log entry, and returns the commands to send in the order of their steps.
    pub fn finish(mut self, position: Position, committed: Option<Position>) -> Transition {
        let mut events = Vec::with_capacity(self.events.len());
        for kind in self.events {
            self.saga.sequence += 1;
            events.push(LifecycleEvent {
                sequence: self.saga.sequence,
                at: self.at,
                kind,
            });
        }
        let entry = SharedJson::from(LogEntry { position, events });
        self.saga.log.push(entry.clone());
        bound_log(&mut self.saga.log, committed);
        let in_flight = in_flight(&self.saga);
        self.commands
            .retain(|(flight, _)| in_flight.contains(flight));
        self.commands.sort_by_key(|(flight, _)| flight.index);
        Transition {
            saga: self.saga,
            entry,
            commands: self.commands.into_iter().map(|(_, sent)| sent).collect(),
            verdict: self.verdict,
        }
    }
}

/// Drops surplus entries that can never be redelivered. The first entry (the start) and the newest entry always stay.
fn bound_log(log: &mut Vec<SharedJson<LogEntry>>, committed: Option<Position>) {
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

/// Returns the state of a step with this delivery of a command of this direction.
pub(super) fn deliver(direction: Direction, delivery: Delivery) -> StepState {
    match direction {
        Direction::Forward => StepState::Running(delivery),
        Direction::Resolve => StepState::Resolving(delivery),
        Direction::Compensation => StepState::Compensating(delivery),
    }
}

/// Returns the instant `milliseconds` after `at`, or the latest possible instant if that is out of range.
pub(super) fn after_ms(at: Timestamp, milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds)
        .ok()
        .and_then(TimeDelta::try_milliseconds)
        .and_then(|delta| at.checked_add_signed(delta))
        .unwrap_or(Timestamp::MAX_UTC)
}
