//! Sagas as sentences, for the tests of definitions: what a saga sends, what it is answered, and how it ends.
//!
//! ```
//! use saga_testkit::saga_test::{command, failure, given, place_order, success};
//! use serde_json::json;
//!
//! given(&place_order())
//!     .input(json!({"orderId": "o-1"}))
//!     .expect(command("inventory.reserve").to("inventory"))
//!     .reply(failure("out_of_stock", "none left"))
//!     .expect(command("order.cancel"))
//!     .reply(success(json!({})))
//!     .expect_compensated_because("out_of_stock");
//! ```
//!
//! No server and no clock: the saga is decided by `saga-core` alone, time is the test's. Every input is checked for
//! more than the sentence says: sequence numbers without a gap, a state that survives being stored as JSON, and a
//! redelivery that yields the same events and commands.

#![expect(
    clippy::return_self_not_must_use,
    clippy::needless_pass_by_value,
    reason = "sentences read better without a let or an ampersand"
)]

mod words;

pub use words::{
    Answer, Expected, command, error, failure, not_done, place_order, place_order_payment_first,
    shipped, success,
};

use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, Delivery, Phase, Position, SagaInstance, SagaStatus, StepState},
    message::{
        ActionKind, Command, Direction, DuePart, Fault, OperatorAction, Outcome, Reply, StartSaga,
        TimerDue, TimerKind, Trace, Verdict,
    },
    transition::{
        EventBody, NotApplied, Outbound, OutgoingCommand, SagaEvent, Transition,
        commands_in_flight, legal_actions, redelivery, start, timers, transition, waiting_on,
    },
};
use serde_json::Value;
use std::{fmt::Write, time::Duration};
use uuid::Uuid;

const HOME_PARTITION: i32 = 0;
/// Why operators ask for things in sentences.
const REASON: &str = "the test says so";

/// Begins a sentence.
pub fn given(definition: &SagaDefinition) -> Given {
    Given {
        definition: definition.clone(),
    }
}

/// A definition of which no saga has started yet.
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
        };
        let outbound = outbound();
        let first = start(
            &self.definition,
            &started,
            HOME_PARTITION,
            now,
            position,
            &outbound,
        );
        let mut test = SagaTest {
            definition: self.definition,
            saga: first.saga.clone(),
            outbound,
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

/// A saga in the middle of its sentence. A clone goes another way from here.
#[derive(Clone, Debug)]
pub struct SagaTest {
    definition: SagaDefinition,
    saga: SagaInstance,
    outbound: Outbound,
    now: Timestamp,
    offset: i64,
    /// Commands that no `expect` has named yet.
    sent: Vec<OutgoingCommand>,
    /// Those that one has; the last is the one that is answered next.
    expected: Vec<Command>,
    verdict: Option<ActionVerdict>,
}

impl SagaTest {
    /// This command was sent. It is the one that the next answer or timer is about.
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

    /// No command was sent that the sentence has not named.
    #[track_caller]
    pub fn expect_nothing_more(self) -> Self {
        if self.sent.is_empty() {
            self
        } else {
            self.fail("expected no other command")
        }
    }

    /// Goes back to a command that was expected earlier, such as the other one of two parallel steps.
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

    /// The command's participant answers.
    #[track_caller]
    pub fn reply(self, answer: Answer) -> Self {
        let body = self.answered(answer, None);
        self.applied(body)
    }

    /// The answer comes, and changes nothing.
    #[track_caller]
    pub fn reply_in_vain(self, answer: Answer) -> Self {
        let body = self.answered(answer, None);
        self.in_vain(body)
    }

    /// The answer is an earlier attempt's.
    #[track_caller]
    pub fn reply_of_attempt(self, attempt: u32, answer: Answer) -> Self {
        let body = self.answered(answer, Some(attempt));
        self.applied(body)
    }

    #[track_caller]
    pub fn reply_of_attempt_in_vain(self, attempt: u32, answer: Answer) -> Self {
        let body = self.answered(answer, Some(attempt));
        self.in_vain(body)
    }

    /// Nobody answers: the command is seen picked up, and its timeout passes.
    #[track_caller]
    pub fn time_out(self) -> Self {
        self.picked_up().times_out()
    }

    /// The command's timer falls due, and its participant has consumed it.
    #[track_caller]
    pub fn picked_up(self) -> Self {
        self.looked_after(Verdict::PickedUp)
    }

    /// The timeout of a command that was seen picked up passes.
    #[track_caller]
    pub fn times_out(self) -> Self {
        self.looked_after(Verdict::Unanswered)
    }

    /// The command's timer falls due, and its participant has not consumed it.
    #[track_caller]
    pub fn queued(self) -> Self {
        self.looked_after(Verdict::Queued)
    }

    /// The command's timer falls due, and its record no longer exists.
    #[track_caller]
    pub fn gone(self) -> Self {
        self.looked_after(Verdict::Gone)
    }

    /// The same, and nothing changes: the saga knew it already.
    #[track_caller]
    pub fn queued_in_vain(mut self) -> Self {
        let body = self.timer(TimerKind::Timeout, Verdict::Queued);
        self.in_vain(body)
    }

    /// A timer of the command that was produced twice, right behind the first.
    #[track_caller]
    pub fn picked_up_again_in_vain(self) -> Self {
        let part = self.current_part();
        let body = self.due(TimerKind::Timeout, Some(part), Verdict::PickedUp);
        self.in_vain(body)
    }

    /// The delay before the next attempt is over.
    #[track_caller]
    pub fn back_off(mut self) -> Self {
        let body = self.timer(TimerKind::Backoff, Verdict::Unknown);
        self.applied(body)
    }

    /// The saga's deadline passes.
    #[track_caller]
    pub fn deadline(mut self) -> Self {
        self.now = self.now.max(self.saga.deadline_at);
        let body = self.due(TimerKind::Deadline, None, Verdict::Unknown);
        self.applied(body)
    }

    #[track_caller]
    pub fn deadline_in_vain(mut self) -> Self {
        self.now = self.now.max(self.saga.deadline_at);
        let body = self.due(TimerKind::Deadline, None, Verdict::Unknown);
        self.in_vain(body)
    }

    #[track_caller]
    pub fn cancel(self) -> Self {
        self.ask(ActionKind::Cancel)
    }

    #[track_caller]
    pub fn retry(self) -> Self {
        self.ask(ActionKind::retry())
    }

    /// An operator asks for something.
    #[track_caller]
    pub fn ask(self, kind: ActionKind) -> Self {
        let body = self.asked(kind);
        self.applied(body)
    }

    #[track_caller]
    pub fn ask_without_reason(self, kind: ActionKind) -> Self {
        let body = match self.asked(kind) {
            EventBody::ActionAsked(action) => EventBody::ActionAsked(OperatorAction {
                reason: "  ".to_owned(),
                ..action
            }),
            other @ (EventBody::CommandReplied(_) | EventBody::TimerFired(_)) => other,
        };
        self.applied(body)
    }

    /// The command turns out to be larger than the broker takes, so it was not sent after all, and the saga is parked.
    #[track_caller]
    pub fn too_large(mut self) -> Self {
        let part = self.current_part();
        let Some((index, _)) = self.definition.step(&part.step) else {
            self.fail("the command is of no step")
        };
        let fault = Fault::new("payload_too_large", "more than the broker takes");
        let attempt = part.attempt;
        self.saga.steps[index].state = StepState::Running(Delivery::UsedUp {
            attempt,
            fault: fault.clone(),
        });
        self.saga.status = SagaStatus::Parked {
            step: part.step,
            reason: fault,
            phase: Phase::Running,
        };
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
        self.expect_verdict(&ActionVerdict::Accepted)
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

    /// The newest input was told in these events, by name and in this order.
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

    /// What the saga waits for, in words that contain this.
    #[track_caller]
    pub fn expect_waiting(self, kind: &str, words: &str) -> Self {
        let waiting = waiting_on(&self.definition, &self.saga);
        if waiting.kind == kind && waiting.text.contains(words) {
            self
        } else {
            self.fail(&format!("expected it to wait for '{kind}' with '{words}'"))
        }
    }

    /// Everything that could be asked of the saga now, as a refusal would name it.
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

    /// The saga waits for a person, at this step and with this code.
    #[track_caller]
    pub fn expect_parked(self, step: &str, code: &str) -> Self {
        match &self.saga.status {
            SagaStatus::Parked {
                step: at, reason, ..
            } if at == step && reason.code == code => self,
            SagaStatus::Parked { .. }
            | SagaStatus::Running
            | SagaStatus::Compensating
            | SagaStatus::Completed
            | SagaStatus::Compensated
            | SagaStatus::Abandoned { .. } => {
                self.fail(&format!("expected it parked at '{step}' with {code}"))
            }
        }
    }

    /// What became of the newest action.
    pub fn verdict(&self) -> Option<&ActionVerdict> {
        self.verdict.as_ref()
    }

    /// The saga as it stands, for what no sentence says.
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
    fn looked_after(mut self, verdict: Verdict) -> Self {
        let body = self.timer(TimerKind::Timeout, verdict);
        self.applied(body)
    }

    /// The armed timer of the current command, once it is due.
    #[track_caller]
    fn timer(&mut self, kind: TimerKind, verdict: Verdict) -> EventBody {
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

    fn due(&self, kind: TimerKind, part: Option<DuePart>, verdict: Verdict) -> EventBody {
        EventBody::TimerFired(TimerDue {
            saga_id: self.saga.id,
            kind,
            part,
            verdict,
            trace: Trace::default(),
        })
    }

    #[track_caller]
    fn current_part(&self) -> DuePart {
        let command = self.current();
        DuePart {
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
    fn answered(&self, answer: Answer, attempt: Option<u32>) -> EventBody {
        let command = self.current();
        let direction = match (command.direction, answer.outcome) {
            // A resolve is answered with the action's own saved reply.
            (Direction::Resolve, Outcome::Success | Outcome::Failure) => Direction::Forward,
            (direction, _) => direction,
        };
        EventBody::CommandReplied(Reply {
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

    fn asked(&self, kind: ActionKind) -> EventBody {
        EventBody::ActionAsked(OperatorAction {
            saga_id: self.saga.id,
            action_id: Uuid::from_u128(u128::from(self.saga.sequence)),
            kind,
            actor: "tester".to_owned(),
            reason: REASON.to_owned(),
            if_version: None,
            trace: Trace::default(),
        })
    }

    #[track_caller]
    fn applied(mut self, body: EventBody) -> Self {
        let before = self.saga.sequence;
        match self.apply(body) {
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
    fn in_vain(mut self, body: EventBody) -> Self {
        match self.apply(body) {
            Ok(_) => self.fail("the input applied, and should have changed nothing"),
            Err(NotApplied::Stale | NotApplied::Unknown) => self,
        }
    }

    fn apply(&mut self, body: EventBody) -> Result<Transition, NotApplied> {
        self.offset += 1;
        self.now += Duration::from_millis(1);
        let event = SagaEvent {
            at: self.now,
            position: Position {
                partition: HOME_PARTITION,
                offset: self.offset,
            },
            body,
        };
        transition(&self.definition, &self.saga, &event, None, &self.outbound)
    }

    /// What holds after every input, whatever the sentence is about.
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
            "a redelivery tells the same"
        );
        let stored = serde_json::to_string(saga).unwrap_or_default();
        let restored: Result<SagaInstance, _> = serde_json::from_str(&stored);
        assert_eq!(
            restored.ok().as_ref(),
            Some(saga),
            "not restored from {stored}"
        );
        let in_flight = commands_in_flight(&self.definition, saga, &self.outbound);
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

fn outbound() -> Outbound {
    Outbound {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
    }
}
