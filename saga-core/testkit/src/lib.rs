//! Tests definitions with sagas written as sentences: the commands that a saga sends, the replies, and how the saga
//! ends.
//!
//! ```
//! use saga_testkit::{command, definition, failure, given, success};
//! use serde_json::json;
//!
//! let trip = definition(
//!     "trip.yaml",
//!     "
//! name: trip
//! version: 1
//! deadline: 1h
//! steps:
//!   - {name: book, kind: compensatable, participant: hotel, command: hotel.book, compensation: {command: hotel.cancel}}
//!   - {name: pay, kind: pivot, participant: bank, command: bank.pay}
//! ",
//! );
//! given(&trip)
//!     .input(json!({"guest": "ann"}))
//!     .expect(command("hotel.book").to("hotel"))
//!     .reply(success(json!({"room": 7})))
//!     .expect(command("bank.pay"))
//!     .reply(failure("declined", "no money"))
//!     .expect(command("hotel.cancel"))
//!     .reply(success(json!({})))
//!     .expect_compensated_because("declined");
//! ```
//!
//! The tests need no server and no clock: `saga-core` alone decides the saga, and the test sets the time. After every
//! input the kit also checks that sequence numbers have no gap, that the state survives being stored as JSON, and that
//! a redelivery yields the same events and commands.

#![expect(
    clippy::return_self_not_must_use,
    clippy::needless_pass_by_value,
    reason = "sentences read better without a let or an ampersand"
)]

mod words;

pub use words::{
    Answer, Expected, answered_resolve, command, definition, error, failure, not_done, success,
};

use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, Position, SagaInstance, SagaStatus},
    message::{
        ActionKind, Command, CommandRef, Direction, Input, OperatorAction, Outcome, PayloadLimit,
        PickUpStatus, Reply, StartSaga, TimerDue, TimerKind, Trace,
    },
    transition::{
        CommandContext, NotApplied, OutgoingCommand, SagaEvent, Transition, commands_in_flight,
        legal_actions, redelivery, start, timers, transition, waiting_on,
    },
};
use serde_json::Value;
use std::{fmt::Write, time::Duration};
use uuid::Uuid;

const HOME_PARTITION: i32 = 0;
/// The reason that operators give in sentences.
const REASON: &str = "the test says so";

/// Begins a sentence.
pub fn given(definition: &SagaDefinition) -> Given {
    Given {
        definition: definition.clone(),
    }
}

/// A definition without a started saga.
#[derive(Debug)]
pub struct Given {
    definition: SagaDefinition,
}

impl Given {
    /// Starts a saga with this input.
    #[track_caller]
    pub fn input(self, input: Value) -> SagaTest {
        let started = StartSaga {
            saga_id: SagaId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001)),
            start_type: "test.started".to_owned(),
            definition: self.definition.name.clone(),
            business_key: None,
            input,
            trace: Trace::default(),
        };
        let now = Timestamp::from_timestamp_millis(1_767_225_600_000).unwrap_or_default();
        let position = Position {
            partition: HOME_PARTITION,
            offset: 0,
            at_ms: 0,
        };
        let command_context = command_context();
        let first = start(
            &self.definition,
            &started,
            HOME_PARTITION,
            now,
            position,
            &command_context,
        );
        let mut test = SagaTest {
            definition: self.definition,
            saga: first.saga.clone(),
            command_context,
            now,
            offset: 0,
            sent: Vec::new(),
            expected: Vec::new(),
            verdict: None,
        };
        test.check(&first, 0);
        test.sent = first.commands;
        test
    }
}

/// A saga in the middle of its sentence. A clone can be continued in another way.
#[derive(Clone, Debug)]
pub struct SagaTest {
    definition: SagaDefinition,
    saga: SagaInstance,
    command_context: CommandContext,
    now: Timestamp,
    offset: i64,
    /// Commands that no `expect` has named yet.
    sent: Vec<OutgoingCommand>,
    /// Commands that an `expect` has named; the last is answered next.
    expected: Vec<Command>,
    verdict: Option<ActionVerdict>,
}

impl SagaTest {
    /// Expects that this command was sent. The next reply or timer is for this command.
    #[track_caller]
    pub fn expect(mut self, expected: Expected) -> Self {
        match self.sent.iter().position(|sent| expected.matches(sent)) {
            Some(index) => {
                self.expected.push(self.sent.remove(index).command);
                self
            }
            None => self.fail(&format!("expected {expected:?}")),
        }
    }

    /// Expects that no further command was sent.
    #[track_caller]
    pub fn expect_nothing_more(self) -> Self {
        if self.sent.is_empty() {
            self
        } else {
            self.fail("expected no other command")
        }
    }

    /// Goes back to a command that was expected earlier, such as the other command of two parallel steps.
    #[track_caller]
    pub fn of(mut self, command_type: &str) -> Self {
        let found = self
            .expected
            .iter()
            .rposition(|command| command.command_type == command_type);
        match found {
            Some(index) => {
                let command = self.expected.remove(index);
                self.expected.push(command);
                self
            }
            None => self.fail(&format!("{command_type} was not expected before")),
        }
    }

    /// Replies to the current command.
    #[track_caller]
    pub fn reply(self, answer: Answer) -> Self {
        let input = self.answered(answer, None);
        self.applied(input)
    }

    /// Replies to the current command, and expects that the reply changes nothing.
    #[track_caller]
    pub fn reply_in_vain(self, answer: Answer) -> Self {
        let input = self.answered(answer, None);
        self.in_vain(input)
    }

    /// Replies to an earlier attempt of the current command.
    #[track_caller]
    pub fn reply_of_attempt(self, attempt: u32, answer: Answer) -> Self {
        let input = self.answered(answer, Some(attempt));
        self.applied(input)
    }

    #[track_caller]
    pub fn stale_reply(self, attempt: u32, answer: Answer) -> Self {
        let input = self.answered(answer, Some(attempt));
        self.in_vain(input)
    }

    /// Lets the current command time out: it is seen consumed, and its timeout passes.
    #[track_caller]
    pub fn time_out(self) -> Self {
        self.picked_up().times_out()
    }

    /// Fires the command's timer, after its participant has consumed the command.
    #[track_caller]
    pub fn picked_up(self) -> Self {
        self.looked_after(PickUpStatus::PickedUp)
    }

    /// Fires the timeout of a command that was seen consumed.
    #[track_caller]
    pub fn times_out(self) -> Self {
        self.looked_after(PickUpStatus::Unanswered)
    }

    /// Fires the command's timer, before its participant has consumed the command.
    #[track_caller]
    pub fn queued(self) -> Self {
        self.looked_after(PickUpStatus::Queued)
    }

    /// Fires the command's timer, after its record was deleted.
    #[track_caller]
    pub fn gone(self) -> Self {
        self.looked_after(PickUpStatus::Gone)
    }

    /// Fires the command's timer while it is queued, and expects that nothing changes, because the saga has recorded
    /// that.
    #[track_caller]
    pub fn queued_in_vain(mut self) -> Self {
        let input = self.timer(TimerKind::Timeout, PickUpStatus::Queued);
        self.in_vain(input)
    }

    /// Applies a second copy of the command's timer directly after the first, and expects that nothing changes.
    #[track_caller]
    pub fn picked_up_again_in_vain(self) -> Self {
        let part = self.current_part();
        let input = self.due(TimerKind::Timeout, Some(part), PickUpStatus::PickedUp);
        self.in_vain(input)
    }

    /// Ends the delay before the next attempt.
    #[track_caller]
    pub fn back_off(mut self) -> Self {
        let input = self.timer(TimerKind::Backoff, PickUpStatus::Unknown);
        self.applied(input)
    }

    /// Lets the saga's deadline pass.
    #[track_caller]
    pub fn deadline(mut self) -> Self {
        self.now = self.now.max(self.saga.deadline_at);
        let input = self.due(TimerKind::Deadline, None, PickUpStatus::Unknown);
        self.applied(input)
    }

    #[track_caller]
    pub fn deadline_in_vain(mut self) -> Self {
        self.now = self.now.max(self.saga.deadline_at);
        let input = self.due(TimerKind::Deadline, None, PickUpStatus::Unknown);
        self.in_vain(input)
    }

    #[track_caller]
    pub fn cancel(self) -> Self {
        self.ask(ActionKind::Cancel)
    }

    #[track_caller]
    pub fn retry(self) -> Self {
        self.ask(ActionKind::retry())
    }

    /// Applies an operator's action.
    #[track_caller]
    pub fn ask(self, kind: ActionKind) -> Self {
        let action = self.asked(kind);
        self.applied(Input::Operator(action))
    }

    #[track_caller]
    pub fn ask_without_reason(self, kind: ActionKind) -> Self {
        let action = OperatorAction {
            reason: "  ".to_owned(),
            ..self.asked(kind)
        };
        self.applied(Input::Operator(action))
    }

    /// Lets the broker accept no larger payloads than this from now on. A command that is larger is not sent: the saga is
    /// parked on it.
    pub fn payload_limit(mut self, bytes: usize) -> Self {
        self.command_context.payload_limit = PayloadLimit::of_bytes(bytes);
        self
    }

    #[track_caller]
    pub fn complete(self, step: &str, result: Value) -> Self {
        let step = step.to_owned();
        self.ask(ActionKind::Complete { step, result })
    }

    #[track_caller]
    pub fn skip(self, step: &str) -> Self {
        self.ask(ActionKind::Skip {
            step: step.to_owned(),
            compensation: false,
        })
    }

    #[track_caller]
    pub fn skip_compensation(self, step: &str) -> Self {
        self.ask(ActionKind::Skip {
            step: step.to_owned(),
            compensation: true,
        })
    }

    #[track_caller]
    pub fn expect_accepted(self) -> Self {
        self.expect_verdict(&ActionVerdict::ACCEPTED)
    }

    #[track_caller]
    pub fn expect_pending(self) -> Self {
        self.expect_verdict(&ActionVerdict::Pending)
    }

    #[track_caller]
    pub fn expect_refused(self, code: &str) -> Self {
        match &self.verdict {
            Some(ActionVerdict::Refused { code: found, .. }) if found == code => self,
            Some(_) | None => self.fail(&format!("expected the action refused with {code}")),
        }
    }

    /// Expects that the newest input caused these events, by name and in this order.
    #[track_caller]
    pub fn expect_events(self, names: &[&str]) -> Self {
        let told: Vec<&str> = self
            .saga
            .log
            .last()
            .map(|entry| entry.events.iter().map(|event| event.kind.name()).collect())
            .unwrap_or_default();
        if told == names {
            self
        } else {
            self.fail(&format!("expected the events {names:?}, found {told:?}"))
        }
    }

    /// Expects that the saga waits for `kind`, described by a text that contains `words`.
    #[track_caller]
    pub fn expect_waiting(self, kind: &str, words: &str) -> Self {
        let waiting = waiting_on(&self.definition, &self.saga);
        if waiting.kind == kind && waiting.text.contains(words) {
            self
        } else {
            self.fail(&format!("expected it to wait for '{kind}' with '{words}'"))
        }
    }

    /// Expects that exactly these actions are legal now, in the words of a refusal.
    #[track_caller]
    pub fn expect_legal(self, expected: &[&str]) -> Self {
        let legal: Vec<String> = legal_actions(&self.definition, &self.saga)
            .iter()
            .map(ToString::to_string)
            .collect();
        if legal == expected {
            self
        } else {
            self.fail(&format!(
                "expected {expected:?} to be legal, found {legal:?}"
            ))
        }
    }

    #[track_caller]
    pub fn expect_abandoned(self) -> Self {
        self.expect_ended(&SagaStatus::Abandoned {
            reason: REASON.to_owned(),
        })
    }

    #[track_caller]
    pub fn expect_completed(self) -> Self {
        self.expect_ended(&SagaStatus::Completed)
    }

    #[track_caller]
    pub fn expect_compensated(self) -> Self {
        self.expect_ended(&SagaStatus::Compensated)
    }

    #[track_caller]
    pub fn expect_compensated_because(self, code: &str) -> Self {
        let test = self.expect_compensated();
        match &test.saga.cause {
            Some(cause) if cause.code == code => test,
            Some(_) | None => test.fail(&format!("expected the cause {code}")),
        }
    }

    /// Expects that the saga is parked at this step with this code.
    #[track_caller]
    pub fn expect_parked(self, step: &str, code: &str) -> Self {
        match self.saga.status.parked() {
            Some((at, reason)) if at == step && reason.code == code => self,
            Some(_) | None => self.fail(&format!("expected it parked at '{step}' with {code}")),
        }
    }

    /// Returns the verdict about the newest action.
    pub fn verdict(&self) -> Option<&ActionVerdict> {
        self.verdict.as_ref()
    }

    /// Returns the saga's state, for checks that no sentence covers.
    pub fn saga(&self) -> &SagaInstance {
        &self.saga
    }

    #[track_caller]
    fn expect_verdict(self, expected: &ActionVerdict) -> Self {
        if self.verdict.as_ref() == Some(expected) {
            self
        } else {
            self.fail(&format!("expected the action {expected:?}"))
        }
    }

    #[track_caller]
    fn expect_ended(self, status: &SagaStatus) -> Self {
        if self.saga.status != *status {
            self.fail(&format!("expected it {}", status.as_str()));
        }
        if !timers(&self.definition, &self.saga).is_empty() {
            self.fail("an ended saga has a timer");
        }
        self.expect_nothing_more()
    }

    #[track_caller]
    fn looked_after(mut self, verdict: PickUpStatus) -> Self {
        let input = self.timer(TimerKind::Timeout, verdict);
        self.applied(input)
    }

    /// Makes the armed timer of the current command, and advances the time until it is due.
    #[track_caller]
    fn timer(&mut self, kind: TimerKind, verdict: PickUpStatus) -> Input {
        let part = self.current_part();
        let armed = timers(&self.definition, &self.saga)
            .into_iter()
            .find(|timer| timer.kind == kind && timer.part.as_ref() == Some(&part));
        match armed {
            Some(timer) => self.now = self.now.max(timer.due_at),
            None => self.fail(&format!("no {kind:?} timer is armed for {part:?}")),
        }
        self.due(kind, Some(part), verdict)
    }

    fn due(&self, kind: TimerKind, part: Option<CommandRef>, verdict: PickUpStatus) -> Input {
        Input::Timer(TimerDue {
            saga_id: self.saga.id,
            kind,
            part,
            verdict,
            picked_up_at: None,
            trace: Trace::default(),
        })
    }

    #[track_caller]
    fn current_part(&self) -> CommandRef {
        let command = self.current();
        CommandRef {
            step: command.step.clone(),
            direction: command.direction,
            attempt: command.attempt,
        }
    }

    #[track_caller]
    fn current(&self) -> &Command {
        match self.expected.last() {
            Some(command) => command,
            None => self.fail("no command was expected yet"),
        }
    }

    #[track_caller]
    fn answered(&self, answer: Answer, attempt: Option<u32>) -> Input {
        let command = self.current();
        let direction = match (command.direction, answer.outcome) {
            // The action's own saved reply answers a resolve.
            (Direction::Resolve, Outcome::Success | Outcome::Failure)
                if !answer.breaks_contract =>
            {
                Direction::Forward
            }
            (direction, _) => direction,
        };
        Input::Reply(Reply {
            saga_id: self.saga.id,
            step: command.step.clone(),
            direction,
            attempt: attempt.unwrap_or(command.attempt),
            reply_type: format!("{}.{}", command.command_type, answer.outcome.as_str()),
            outcome: answer.outcome,
            payload: answer.payload,
            trace: Trace::default(),
        })
    }

    fn asked(&self, kind: ActionKind) -> OperatorAction {
        OperatorAction {
            saga_id: self.saga.id,
            action_id: Uuid::from_u128(u128::from(self.saga.sequence)),
            kind,
            actor: "tester".to_owned(),
            reason: REASON.to_owned(),
            if_version: None,
            trace: Trace::default(),
        }
    }

    #[track_caller]
    fn applied(mut self, input: Input) -> Self {
        let before = self.saga.sequence;
        match self.apply(input) {
            Ok(applied) => {
                self.saga = applied.saga.clone();
                self.check(&applied, before);
                self.verdict = applied.verdict;
                self.sent.extend(applied.commands);
                self
            }
            Err(why) => self.fail(&format!("the input did not apply: {why:?}")),
        }
    }

    #[track_caller]
    fn in_vain(mut self, input: Input) -> Self {
        match self.apply(input) {
            Ok(_) => self.fail("the input applied, and should have changed nothing"),
            Err(NotApplied::Stale | NotApplied::Unknown) => self,
        }
    }

    fn apply(&mut self, input: Input) -> Result<Transition, NotApplied> {
        self.offset += 1;
        self.now += Duration::from_millis(1);
        let event = SagaEvent {
            at: self.now,
            position: Position {
                partition: HOME_PARTITION,
                offset: self.offset,
                at_ms: 0,
            },
            input,
        };
        transition(
            &self.definition,
            &self.saga,
            &event,
            None,
            &self.command_context,
        )
    }

    /// Checks invariants that hold after every input, whatever the sentence tests.
    #[track_caller]
    fn check(&self, applied: &Transition, before: u64) {
        let saga = &self.saga;
        let events = &applied.entry.events;
        for (event, sequence) in events.iter().zip(before + 1..) {
            assert_eq!(event.sequence, sequence, "a gap in {events:#?}");
        }
        let position = saga.log.last().map(|entry| entry.position);
        let again = position.and_then(|position| redelivery(saga, position));
        assert_eq!(
            again,
            Some(events.as_slice()),
            "a redelivery yields the same events"
        );
        let stored = serde_json::to_string(saga).unwrap_or_default();
        let restored: Result<SagaInstance, _> = serde_json::from_str(&stored);
        assert_eq!(
            restored.ok().as_ref(),
            Some(saga),
            "not restored from {stored}"
        );
        let in_flight = commands_in_flight(&self.definition, saga, &self.command_context);
        for command in &applied.commands {
            assert!(
                in_flight.contains(command),
                "sent, but not in flight: {command:?}"
            );
        }
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        let mut story = String::new();
        for event in self.saga.log.iter().flat_map(|entry| &entry.events) {
            // Writing to a string cannot fail.
            writeln!(story, "  {:>3} {:?}", event.sequence, event.kind).unwrap_or_default();
        }
        let unexpected: Vec<String> = self
            .sent
            .iter()
            .map(|sent| {
                let command = &sent.command;
                format!(
                    "{} {} to {} {}",
                    command.command_type, command.attempt, sent.participant, command.payload
                )
            })
            .collect();
        panic!(
            "{what}\nthe saga is {}: {}\nverdict: {:?}\nsent and not named yet: {unexpected:#?}\nits story:\n{story}",
            self.saga.status.as_str(),
            waiting_on(&self.definition, &self.saga).text,
            self.verdict,
        )
    }
}

fn command_context() -> CommandContext {
    CommandContext {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
        payload_limit: PayloadLimit::NONE,
    }
}
