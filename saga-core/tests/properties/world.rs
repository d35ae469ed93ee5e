//! Simulates one saga. The orchestrator may crash anywhere, the log may duplicate, lose and reorder, and participants
//! may fail, err and be slow.
//!
//! ```text
//!   inputs: [start, reply, timer, …]      next ≥ committed          bag of commands, in no order
//!            └ committed ┘└ applied, output perhaps not sent ┘  ──▶  participants (barrier)  ──▶  inputs
//! ```

#![expect(clippy::unwrap_used, reason = "what is not there fails the test")]

mod promises;

use crate::participant::{Fate, Participant};
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{ArmedTimer, LifecycleEvent, Position, SagaInstance, SagaStatus},
    message::{
        ActionKind, Command, Input, OperatorAction, PayloadLimit, PickUpStatus, Reply, StartSaga,
        TimerDue, TimerKind, Trace,
    },
    transition::{
        CommandContext, OutgoingCommand, SagaEvent, Transition, commands_in_flight, recover,
        redelivery, start, timers, transition,
    },
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use uuid::Uuid;

/// A move of the simulated world. A number selects one of the candidates.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// The orchestrator applies its next input; the resulting commands wait in its memory.
    Deliver,
    /// The commands in the orchestrator's memory are produced.
    Flush,
    /// Everything is produced and the offsets are committed.
    CommitOffsets,
    /// Commands that were not produced are lost, and inputs are read again from the committed offset.
    Crash,
    StepSucceeds(usize),
    StepFails(usize),
    StepErrors(usize),
    /// An external call is opened.
    StepPends(usize),
    Settle(usize, bool),
    DuplicateInput(usize),
    DuplicateCommand(usize),
    DropInput(usize),
    DropCommand(usize),
    ReorderInputs(usize),
    /// An armed timer falls due; its verdict is the truth.
    FireTimer(usize),
    /// An armed timer falls due while offsets cannot be read.
    FireTimerBlindly(usize),
    /// A command's record is found to be deleted.
    FindGone(usize),
    Deadline,
    Cancel,
    Compensate,
    Retry,
    RetryCorrected(usize),
    Complete(usize),
    NotDone(usize),
    Skip(usize),
    SkipCompensation(usize),
    Abandon,
}

#[derive(Clone, Debug)]
enum LogRecord {
    Start,
    /// The start once more, sent together with a cancel.
    StartAgain,
    Other(Box<Input>),
}

/// More rounds than any saga needs in the liveness phase.
const ROUNDS: usize = 500;

pub struct World {
    definition: SagaDefinition,
    started: StartSaga,
    command_context: CommandContext,
    now: Timestamp,
    inputs: Vec<LogRecord>,
    next: usize,
    committed: usize,
    saga: Option<SagaInstance>,
    /// Commands that were decided but not produced yet.
    memory: Vec<Command>,
    /// Commands that were produced but not consumed by their participant.
    bag: Vec<Command>,
    participants: BTreeMap<String, Participant>,
    /// Every event ever sent, by its sequence number.
    told: BTreeMap<u64, LifecycleEvent>,
    /// Ids of all commands that a decision made.
    decided: HashSet<String>,
    actions: u128,
    /// True if the saga was lost and recovered. Messages from before the loss may still arrive.
    forgotten: bool,
}

type Begin =
    fn(&SagaDefinition, &StartSaga, i32, Timestamp, Position, &CommandContext) -> Transition;

impl World {
    pub fn new(definition: SagaDefinition, payload_limit: PayloadLimit) -> Self {
        let participants = definition.steps.iter().map(|step| {
            let participant = match step.action {
                Some(_) => Participant::default(),
                None => Participant::starter(),
            };
            (step.name.clone(), participant)
        });
        Self {
            started: StartSaga {
                saga_id: SagaId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001)),
                start_type: "test.started".to_owned(),
                definition: definition.name.clone(),
                business_key: Some("key".to_owned()),
                input: json!({"orderId": "o-1", "items": [1, 2]}),
                trace: Trace::default(),
            },
            command_context: CommandContext {
                reply_topic: "saga.inputs".to_owned(),
                floor: None,
                payload_limit,
            },
            now: Timestamp::from_timestamp_millis(1_767_225_600_000).unwrap(),
            inputs: vec![LogRecord::Start],
            next: 0,
            committed: 0,
            saga: None,
            memory: Vec::new(),
            bag: Vec::new(),
            participants: participants.collect(),
            told: BTreeMap::new(),
            decided: HashSet::new(),
            actions: 0,
            forgotten: false,
            definition,
        }
    }

    pub fn make(&mut self, one: Move) {
        if let Some(action) = self.action(one) {
            self.ask(action);
            return;
        }
        match one {
            Move::Deliver => self.deliver(),
            Move::Flush => self.bag.append(&mut self.memory),
            Move::CommitOffsets => {
                self.bag.append(&mut self.memory);
                self.committed = self.next;
            }
            Move::Crash => {
                self.memory.clear();
                self.next = self.committed;
            }
            Move::StepSucceeds(nth) => self.consume(nth, Fate::Succeeds),
            Move::StepFails(nth) => self.consume(nth, Fate::Fails),
            Move::StepErrors(nth) => self.consume(nth, Fate::Errs),
            Move::StepPends(nth) => self.consume(nth, Fate::Pends),
            Move::Settle(nth, done) => {
                self.settle(nth, if done { Fate::Succeeds } else { Fate::Fails });
            }
            Move::DuplicateInput(nth) => {
                if let Some(input) = pick(&self.inputs, nth).cloned() {
                    self.inputs.push(input);
                }
            }
            Move::DuplicateCommand(nth) => {
                if let Some(command) = pick(&self.bag, nth).cloned() {
                    self.bag.push(command);
                }
            }
            Move::DropInput(nth) => {
                if let Some(place) = self.unread(nth) {
                    self.inputs.remove(place);
                }
            }
            Move::DropCommand(nth) => {
                if !self.bag.is_empty() {
                    self.bag.swap_remove(nth % self.bag.len());
                }
            }
            Move::ReorderInputs(nth) => {
                if let Some(place) = self.unread(nth)
                    && place + 1 < self.inputs.len()
                {
                    self.inputs.swap(place, place + 1);
                }
            }
            Move::FireTimer(nth) => self.fire(nth, None),
            Move::FireTimerBlindly(nth) => self.fire(nth, Some(PickUpStatus::Unknown)),
            Move::FindGone(nth) => self.fire(nth, Some(PickUpStatus::Gone)),
            Move::Deadline => self.deadline(),
            Move::Cancel
            | Move::Compensate
            | Move::Retry
            | Move::RetryCorrected(_)
            | Move::Complete(_)
            | Move::NotDone(_)
            | Move::Skip(_)
            | Move::SkipCompensation(_)
            | Move::Abandon => {}
        }
    }

    /// Returns the operator's action, if the move is an operator's.
    fn action(&self, one: Move) -> Option<ActionKind> {
        match one {
            Move::Cancel => Some(ActionKind::Cancel),
            Move::Compensate => Some(ActionKind::Compensate),
            Move::Retry => Some(ActionKind::retry()),
            Move::RetryCorrected(nth) => Some(ActionKind::Retry {
                step: Some(self.step(nth)),
                input: Some(json!({"corrected": nth})),
            }),
            Move::Complete(nth) => Some(ActionKind::Complete {
                step: self.step(nth),
                result: json!({"byHand": nth}),
            }),
            Move::NotDone(nth) => Some(ActionKind::NotDone {
                step: self.step(nth),
            }),
            Move::Skip(nth) => Some(ActionKind::Skip {
                step: self.step(nth),
                compensation: false,
            }),
            Move::SkipCompensation(nth) => Some(ActionKind::Skip {
                step: self.step(nth),
                compensation: true,
            }),
            Move::Abandon => Some(ActionKind::Abandon),
            Move::Deliver
            | Move::Flush
            | Move::CommitOffsets
            | Move::Crash
            | Move::StepSucceeds(_)
            | Move::StepFails(_)
            | Move::StepErrors(_)
            | Move::StepPends(_)
            | Move::Settle(..)
            | Move::DuplicateInput(_)
            | Move::DuplicateCommand(_)
            | Move::DropInput(_)
            | Move::DropCommand(_)
            | Move::ReorderInputs(_)
            | Move::FireTimer(_)
            | Move::FireTimerBlindly(_)
            | Move::FindGone(_)
            | Move::Deadline => None,
        }
    }

    /// Returns the place of an input that was never read, so that it may still move in the log. A start is never
    /// returned.
    fn unread(&self, nth: usize) -> Option<usize> {
        let applied = self.saga.as_ref().map_or(1, |saga| {
            let last = saga.log.iter().map(|entry| entry.position.offset).max();
            last.map_or(1, |offset| offset as usize + 1)
        });
        let again = |input: &LogRecord| matches!(input, LogRecord::StartAgain);
        let start = self.inputs.iter().position(again).unwrap_or(0);
        let from = self.next.max(applied).max(start + 1);
        let count = self
            .inputs
            .len()
            .checked_sub(from)
            .filter(|count| *count > 0)?;
        Some(from + nth % count)
    }

    fn deliver(&mut self) {
        let Some(record) = self.inputs.get(self.next).cloned() else {
            return;
        };
        let position = Position {
            partition: 0,
            offset: self.next as i64,
            at_ms: 0,
        };
        self.next += 1;
        self.now += Duration::from_millis(1);
        match (self.saga.take(), record) {
            (None, LogRecord::Start) => {
                let first = self.begin(start, position);
                self.accept(first, &[]);
            }
            (None, LogRecord::StartAgain) => {
                let first = self.begin(recover, position);
                self.accept(first, &[]);
            }
            (None, LogRecord::Other(_)) => {}
            (Some(saga), LogRecord::Start | LogRecord::StartAgain) => {
                self.not_applied(saga, position);
            }
            (Some(saga), LogRecord::Other(input)) => self.apply(saga, position, *input),
        }
    }

    fn begin(&self, begin: Begin, position: Position) -> Transition {
        begin(
            &self.definition,
            &self.started,
            0,
            self.now,
            position,
            &self.command_context,
        )
    }

    fn apply(&mut self, saga: SagaInstance, position: Position, input: Input) {
        let event = SagaEvent {
            at: self.now,
            position,
            input,
        };
        let committed = (self.committed > 0).then(|| Position {
            partition: 0,
            offset: self.committed as i64 - 1,
            at_ms: 0,
        });
        let applied = transition(
            &self.definition,
            &saga,
            &event,
            committed,
            &self.command_context,
        );
        let again = transition(
            &self.definition,
            &saga,
            &event,
            committed,
            &self.command_context,
        );
        assert_eq!(
            applied, again,
            "the same input makes the same of the same saga"
        );
        match applied {
            Ok(applied) => {
                if let Input::Operator(action) = &event.input {
                    self.check_verdict(&saga, &action.kind, &applied);
                }
                let before = commands_in_flight(&self.definition, &saga, &self.command_context);
                self.accept(applied, &before);
            }
            Err(_) => self.not_applied(saga, position),
        }
    }

    /// Handles an input that did not apply. A redelivery sends the same events and the commands in flight again; any
    /// other duplicate sends nothing.
    fn not_applied(&mut self, saga: SagaInstance, position: Position) {
        if let Some(events) = redelivery(&saga, position) {
            for event in events {
                self.add_event(event);
            }
            let again = commands_in_flight(&self.definition, &saga, &self.command_context);
            for sent in &again {
                assert!(
                    self.decided.contains(&sent.command.id()),
                    "resent, never decided"
                );
            }
            self.memory
                .extend(again.into_iter().map(|sent| sent.command));
        }
        self.saga = Some(saga);
    }

    fn accept(&mut self, applied: Transition, before: &[OutgoingCommand]) {
        for event in &applied.entry.events {
            self.add_event(event);
        }
        assert!(
            applied.commands.len() <= self.definition.steps.len(),
            "amplification: {:#?}",
            applied.commands
        );
        self.check_sent(&applied);
        for sent in &applied.commands {
            let is_new = self.decided.insert(sent.command.id());
            let again = before
                .iter()
                .any(|old| old.command.id() == sent.command.id());
            assert!(is_new || again, "decided twice: {}", sent.command.id());
        }
        // A command that stays in flight must not change.
        let after = commands_in_flight(&self.definition, &applied.saga, &self.command_context);
        for old in before {
            if let Some(new) = after
                .iter()
                .find(|new| new.command.id() == old.command.id())
            {
                assert_eq!(old, new, "a command in flight changed");
            }
        }
        self.memory
            .extend(applied.commands.into_iter().map(|sent| sent.command));
        let stored = serde_json::to_string(&applied.saga).unwrap();
        let restored: SagaInstance = serde_json::from_str(&stored).unwrap();
        assert_eq!(restored, applied.saga, "not restored from {stored}");
        self.saga = Some(restored);
    }

    fn add_event(&mut self, event: &LifecycleEvent) {
        let earlier = self.told.insert(event.sequence, event.clone());
        assert!(
            earlier.is_none_or(|earlier| earlier == *event),
            "two events have the number {}",
            event.sequence
        );
    }

    fn consume(&mut self, nth: usize, fate: Fate) {
        if self.bag.is_empty() {
            return;
        }
        let command = self.bag.remove(nth % self.bag.len());
        let participant = self.participants.get_mut(&command.step).unwrap();
        let replies = participant.handle(command, fate);
        self.answered(replies);
    }

    fn settle(&mut self, nth: usize, fate: Fate) {
        let mut open: Vec<&mut Participant> = self
            .participants
            .values_mut()
            .filter(|participant| participant.is_pending())
            .collect();
        if open.is_empty() {
            return;
        }
        let chosen = nth % open.len();
        let replies = open[chosen].settle(fate);
        self.answered(replies);
    }

    fn answered(&mut self, replies: Vec<Reply>) {
        let inputs = replies
            .into_iter()
            .map(|reply| LogRecord::Other(Box::new(Input::Reply(reply))));
        self.inputs.extend(inputs);
    }

    fn armed(&self) -> Vec<ArmedTimer> {
        let Some(saga) = &self.saga else {
            return Vec::new();
        };
        let mut armed = timers(&self.definition, saga);
        armed.retain(|timer| timer.kind != TimerKind::Deadline);
        armed
    }

    fn fire(&mut self, nth: usize, verdict: Option<PickUpStatus>) {
        let armed = self.armed();
        let Some(timer) = pick(&armed, nth) else {
            return;
        };
        // The timer must be about the current attempt. `Gone` for a command that was answered or is on its way would be
        // wrong; only a broker with a lost disk could cause that.
        let truth = match (timer.kind, &timer.part) {
            (TimerKind::Timeout, Some(part)) => {
                let queued = self.bag.iter().chain(&self.memory).any(|command| {
                    command.step == part.step
                        && command.direction == part.direction
                        && command.attempt == part.attempt
                });
                if queued {
                    PickUpStatus::Queued
                } else {
                    self.looked_up(timer)
                }
            }
            (TimerKind::Backoff | TimerKind::Deadline | TimerKind::Timeout, _) => {
                PickUpStatus::Unknown
            }
        };
        self.now = self.now.max(timer.due_at);
        let due = TimerDue {
            saga_id: self.started.saga_id,
            kind: timer.kind,
            part: timer.part.clone(),
            verdict: verdict.unwrap_or(truth),
            picked_up_at: None,
            trace: Trace::default(),
        };
        self.inputs
            .push(LogRecord::Other(Box::new(Input::Timer(due))));
    }

    /// Returns the verdict about a command that is in no log: it was consumed, or it was lost in a crash whose
    /// redelivery will send it again.
    fn looked_up(&self, timer: &ArmedTimer) -> PickUpStatus {
        match timer.participant {
            Some(_) if self.next < self.replayed_to() => PickUpStatus::Queued,
            Some(_) => PickUpStatus::PickedUp,
            None => PickUpStatus::Unanswered,
        }
    }

    /// Returns the place in the log up to which inputs were applied before a crash.
    fn replayed_to(&self) -> usize {
        self.saga
            .iter()
            .flat_map(|saga| &saga.log)
            .map(|entry| entry.position.offset as usize + 1)
            .max()
            .unwrap_or(0)
    }

    fn deadline(&mut self) {
        let Some(saga) = &self.saga else { return };
        self.now = self.now.max(saga.deadline_at);
        let due = TimerDue {
            saga_id: saga.id,
            kind: TimerKind::Deadline,
            part: None,
            verdict: PickUpStatus::Unknown,
            picked_up_at: None,
            trace: Trace::default(),
        };
        self.inputs
            .push(LogRecord::Other(Box::new(Input::Timer(due))));
    }

    fn step(&self, nth: usize) -> String {
        let steps = &self.definition.steps;
        steps[nth % steps.len()].name.clone()
    }

    fn ask(&mut self, kind: ActionKind) {
        self.actions += 1;
        let action = OperatorAction {
            saga_id: self.started.saga_id,
            action_id: Uuid::from_u128(self.actions),
            kind,
            actor: "tester".to_owned(),
            reason: "the move says so".to_owned(),
            if_version: None,
            trace: Trace::default(),
        };
        self.inputs
            .push(LogRecord::Other(Box::new(Input::Operator(action))));
    }

    /// Runs the liveness phase: nothing is lost any more, every participant answers with success, operators retry.
    pub fn become_kind(&mut self) {
        for _ in 0..ROUNDS {
            while self.next < self.inputs.len() {
                self.make(Move::Deliver);
                self.check_invariants();
            }
            self.make(Move::CommitOffsets);
            if self.is_ended() {
                return;
            }
            if !self.bag.is_empty() {
                self.make(Move::StepSucceeds(0));
            } else if self.participants.values().any(Participant::is_pending) {
                self.make(Move::Settle(0, true));
            } else if let SagaStatus::Parked { step, reason, .. } = &self.saga().status {
                let kind = self.last_resort(step, &reason.code);
                self.ask(kind);
            } else {
                let count = self.armed().len();
                assert!(count > 0, "stands still: {:#?}", self.saga);
                (0..count).for_each(|nth| self.make(Move::FireTimer(nth)));
            }
        }
        panic!("did not end in {ROUNDS} rounds: {:#?}", self.saga);
    }

    /// Returns the action that an operator asks for: a retry with a payload that can be sent, or a skip if a retry is in
    /// vain.
    fn last_resort(&self, step: &str, code: &str) -> ActionKind {
        if code == "payload_too_large" {
            return ActionKind::Retry {
                step: Some(step.to_owned()),
                input: Some(json!("small")),
            };
        }
        let is_in_vain =
            code == "contract_broken" && self.participant(step).has_failed() || code == "not_done";
        if is_in_vain {
            ActionKind::Skip {
                step: step.to_owned(),
                compensation: false,
            }
        } else {
            ActionKind::retry()
        }
    }

    /// Delivers the commands that reach their participants only after the saga's end.
    pub fn deliver_what_is_left_over(&mut self) {
        while !self.bag.is_empty() {
            self.make(Move::StepSucceeds(0));
            self.check_invariants();
        }
        while self.participants.values().any(Participant::is_pending) {
            self.make(Move::Settle(0, true));
            self.check_invariants();
        }
    }

    /// Loses the orchestrator's database and everything that it has read. Messages that it has sent and the
    /// participants' state are kept. Then the saga is cancelled. A saga that has ended is not cancelled.
    pub fn forget_and_cancel(&mut self) {
        if self.is_ended() {
            return;
        }
        self.make(Move::Flush);
        self.saga = None;
        self.next = self.inputs.len();
        self.committed = self.next;
        self.told.clear();
        self.decided.clear();
        self.forgotten = true;
        self.inputs.push(LogRecord::StartAgain);
        self.ask(ActionKind::Cancel);
    }

    fn saga(&self) -> &SagaInstance {
        self.saga.as_ref().unwrap()
    }

    fn is_ended(&self) -> bool {
        self.saga
            .as_ref()
            .is_some_and(|saga| saga.status.is_ended())
    }

    fn participant(&self, name: &str) -> &Participant {
        &self.participants[name]
    }
}

fn pick<T>(items: &[T], nth: usize) -> Option<&T> {
    (!items.is_empty()).then(|| &items[nth % items.len()])
}
