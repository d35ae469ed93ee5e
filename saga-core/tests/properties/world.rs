//! One saga between an orchestrator that may crash anywhere, a log that may double, lose and reorder, and participants
//! that fail, err and take their time.
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
        ActionKind, Command, OperatorAction, Reply, StartSaga, TimerDue, TimerKind, Trace, Verdict,
    },
    transition::{
        EventBody, Outbound, OutgoingCommand, SagaEvent, Transition, commands_in_flight,
        redelivery, start, timers, transition,
    },
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use uuid::Uuid;

/// What the world may do. A number chooses among what there is.
#[derive(Clone, Copy, Debug)]
pub enum Move {
    /// The orchestrator applies its next input; what follows waits in its memory.
    Deliver,
    /// What waits there is produced.
    Flush,
    /// Everything is produced and the offsets are committed.
    CommitOffsets,
    /// What was not produced is lost, and inputs are read again from the committed offset.
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
    /// A command's record is found to be gone.
    FindGone(usize),
    Deadline,
    Cancel,
    Compensate,
    Retry,
    RetryCorrected(usize),
    Complete(usize),
    Skip(usize),
    SkipCompensation(usize),
    Abandon,
}

#[derive(Clone, Debug)]
enum Input {
    Start,
    Other(Box<EventBody>),
}

/// More rounds than any saga of a kind world needs.
const ROUNDS: usize = 2_000;

pub struct World {
    definition: SagaDefinition,
    started: StartSaga,
    outbound: Outbound,
    now: Timestamp,
    inputs: Vec<Input>,
    next: usize,
    committed: usize,
    saga: Option<SagaInstance>,
    /// Decided but not produced yet.
    memory: Vec<Command>,
    /// Produced, and not consumed by its participant.
    bag: Vec<Command>,
    participants: BTreeMap<String, Participant>,
    /// Every event ever sent, by its number.
    told: BTreeMap<u64, LifecycleEvent>,
    /// Ids of all commands that a decision made.
    decided: HashSet<String>,
    actions: u128,
}

impl World {
    pub fn new(definition: SagaDefinition) -> Self {
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
            outbound: Outbound {
                reply_topic: "saga.inputs".to_owned(),
                floor: None,
            },
            now: Timestamp::from_timestamp_millis(1_767_225_600_000).unwrap(),
            inputs: vec![Input::Start],
            next: 0,
            committed: 0,
            saga: None,
            memory: Vec::new(),
            bag: Vec::new(),
            participants: participants.collect(),
            told: BTreeMap::new(),
            decided: HashSet::new(),
            actions: 0,
            definition,
        }
    }

    pub fn make(&mut self, one: Move) {
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
            Move::FireTimerBlindly(nth) => self.fire(nth, Some(Verdict::Unknown)),
            Move::FindGone(nth) => self.fire(nth, Some(Verdict::Gone)),
            Move::Deadline => self.deadline(),
            Move::Cancel => self.ask(ActionKind::Cancel),
            Move::Compensate => self.ask(ActionKind::Compensate),
            Move::Retry => self.ask(ActionKind::retry()),
            Move::RetryCorrected(nth) => self.ask(ActionKind::Retry {
                step: Some(self.step(nth)),
                input: Some(json!({"corrected": nth})),
            }),
            Move::Complete(nth) => self.ask(ActionKind::Complete {
                step: self.step(nth),
                result: json!({"byHand": nth}),
            }),
            Move::Skip(nth) => self.ask(ActionKind::Skip {
                step: self.step(nth),
                compensation: false,
            }),
            Move::SkipCompensation(nth) => self.ask(ActionKind::Skip {
                step: self.step(nth),
                compensation: true,
            }),
            Move::Abandon => self.ask(ActionKind::Abandon),
        }
    }

    /// An input that was never read, so that its place in the log may still change; never the start.
    fn unread(&self, nth: usize) -> Option<usize> {
        let applied = self.saga.as_ref().map_or(1, |saga| {
            let last = saga.log.iter().map(|entry| entry.position.offset).max();
            last.map_or(1, |offset| offset as usize + 1)
        });
        let from = self.next.max(applied).max(1);
        let count = self
            .inputs
            .len()
            .checked_sub(from)
            .filter(|count| *count > 0)?;
        Some(from + nth % count)
    }

    fn deliver(&mut self) {
        let Some(input) = self.inputs.get(self.next).cloned() else {
            return;
        };
        let position = Position {
            partition: 0,
            offset: self.next as i64,
        };
        self.next += 1;
        self.now += Duration::from_millis(1);
        match (self.saga.take(), input) {
            (None, Input::Start) => {
                let first = self.start(position);
                self.accept(first, &[]);
            }
            (None, Input::Other(_)) => {}
            (Some(saga), Input::Start) => self.not_applied(saga, position),
            (Some(saga), Input::Other(body)) => self.apply(saga, position, *body),
        }
    }

    fn start(&self, position: Position) -> Transition {
        start(
            &self.definition,
            &self.started,
            0,
            self.now,
            position,
            &self.outbound,
        )
    }

    fn apply(&mut self, saga: SagaInstance, position: Position, body: EventBody) {
        let event = SagaEvent {
            at: self.now,
            position,
            body,
        };
        let committed = (self.committed > 0).then(|| Position {
            partition: 0,
            offset: self.committed as i64 - 1,
        });
        let applied = transition(&self.definition, &saga, &event, committed, &self.outbound);
        let again = transition(&self.definition, &saga, &event, committed, &self.outbound);
        assert_eq!(
            applied, again,
            "the same input makes the same of the same saga"
        );
        match applied {
            Ok(applied) => {
                if let EventBody::ActionAsked(action) = &event.body {
                    self.check_verdict(&saga, &action.kind, &applied);
                }
                let before = commands_in_flight(&self.definition, &saga, &self.outbound);
                self.accept(applied, &before);
            }
            Err(_) => self.not_applied(saga, position),
        }
    }

    /// A redelivery sends the same events and what is in flight again; any other duplicate sends nothing.
    fn not_applied(&mut self, saga: SagaInstance, position: Position) {
        if let Some(events) = redelivery(&saga, position) {
            for event in events {
                self.tell(event);
            }
            let again = commands_in_flight(&self.definition, &saga, &self.outbound);
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
            self.tell(event);
        }
        assert!(
            applied.commands.len() <= self.definition.steps.len(),
            "amplification: {:#?}",
            applied.commands
        );
        for sent in &applied.commands {
            let is_new = self.decided.insert(sent.command.id());
            let again = before
                .iter()
                .any(|old| old.command.id() == sent.command.id());
            assert!(is_new || again, "decided twice: {}", sent.command.id());
        }
        // What stays in flight stays what it was.
        let after = commands_in_flight(&self.definition, &applied.saga, &self.outbound);
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

    fn tell(&mut self, event: &LifecycleEvent) {
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
            .map(|reply| Input::Other(Box::new(EventBody::CommandReplied(reply))));
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

    fn fire(&mut self, nth: usize, verdict: Option<Verdict>) {
        let armed = self.armed();
        let Some(timer) = pick(&armed, nth) else {
            return;
        };
        // A timer is about an attempt: `Gone` of a command that was answered or is on its way is a lie that a broker
        // with a lost disk could tell.
        let truth = match (timer.kind, &timer.part) {
            (TimerKind::Timeout, Some(part)) => {
                let queued = self.bag.iter().chain(&self.memory).any(|command| {
                    command.step == part.step
                        && command.direction == part.direction
                        && command.attempt == part.attempt
                });
                if queued {
                    Verdict::Queued
                } else {
                    self.looked_up(timer)
                }
            }
            (TimerKind::Backoff | TimerKind::Deadline | TimerKind::Timeout, _) => Verdict::Unknown,
        };
        self.now = self.now.max(timer.due_at);
        let due = TimerDue {
            saga_id: self.started.saga_id,
            kind: timer.kind,
            part: timer.part.clone(),
            verdict: verdict.unwrap_or(truth),
            trace: Trace::default(),
        };
        self.inputs
            .push(Input::Other(Box::new(EventBody::TimerFired(due))));
    }

    /// A command that is nowhere was consumed, or it was lost in a crash whose redelivery will send it again.
    fn looked_up(&self, timer: &ArmedTimer) -> Verdict {
        match timer.participant {
            Some(_) if self.next < self.replayed_to() => Verdict::Queued,
            Some(_) => Verdict::PickedUp,
            None => Verdict::Unanswered,
        }
    }

    /// The place in the log up to which inputs were applied before a crash.
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
            verdict: Verdict::Unknown,
            trace: Trace::default(),
        };
        self.inputs
            .push(Input::Other(Box::new(EventBody::TimerFired(due))));
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
            .push(Input::Other(Box::new(EventBody::ActionAsked(action))));
    }

    /// The liveness phase: nothing is lost any more, everyone answers with success, operators retry.
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
            } else if matches!(self.saga().status, SagaStatus::Parked { .. }) {
                self.make(Move::Retry);
            } else {
                let count = self.armed().len();
                assert!(count > 0, "stands still: {:#?}", self.saga);
                (0..count).for_each(|nth| self.make(Move::FireTimer(nth)));
            }
        }
        panic!("did not end in {ROUNDS} rounds: {:#?}", self.saga);
    }

    /// Commands that were late all along reach their participants after the end.
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
