//! Runs one saga from its start to its end, with scripted failures. The decisions and the barrier are the real ones;
//! two queues and a clock connect them.

use super::{
    order,
    participants::Participants,
    script::{Mishap, Script},
};
use saga_core::{
    definition::{SagaDefinition, StepKind},
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, LifecycleKind, Position, SagaInstance, SagaStatus, StepState},
    message::{
        ActionKind, Command, Direction, Input, OperatorAction, PayloadLimit, PickUpStatus, Reply,
        StartSaga, TimerDue, TimerKind, Trace,
    },
    transition::{
        CommandContext, NotApplied, SagaEvent, Transition, redelivery, start, timers, transition,
    },
};
use std::collections::VecDeque;
use uuid::Uuid;

/// More inputs than any run needs. A saga that takes more does not end.
const INPUTS_LIMIT: usize = 2_000;
/// The most retries that a person makes before giving up.
const RETRIES_LIMIT: usize = 5;

#[derive(Clone, Debug)]
enum Message {
    Command(Command),
    Reply(Reply),
}

/// A finished run.
pub struct Run<'a> {
    definition: &'a SagaDefinition,
    script: Script,
    pub saga: SagaInstance,
    pub participants: Participants,
    /// Number of commands and replies, including the dropped ones.
    pub messages: usize,
    pub inputs: usize,
    /// Number of times that the saga was parked.
    pub parked: usize,
    pub verdict: Option<ActionVerdict>,
    now: Timestamp,
    queue: VecDeque<Message>,
    late: VecDeque<Message>,
    command_context: CommandContext,
}

/// Runs a saga of `definition` to its end, and asserts that its state is clean.
#[track_caller]
pub fn run(definition: &SagaDefinition, script: Script) -> Run<'_> {
    let mut run = Run::start(definition, script);
    while run.goes_on() {
        assert!(run.inputs < INPUTS_LIMIT, "it never ends: {}", run.story());
    }
    run.check_clean_slate();
    run
}

impl<'a> Run<'a> {
    fn start(definition: &'a SagaDefinition, script: Script) -> Self {
        let started = StartSaga {
            saga_id: SagaId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001)),
            start_type: "test.started".to_owned(),
            definition: definition.name.clone(),
            business_key: None,
            input: order(),
            trace: Trace::default(),
        };
        let now = Timestamp::from_timestamp_millis(1_767_225_600_000).unwrap_or_default();
        let command_context = CommandContext {
            reply_topic: "saga.inputs".to_owned(),
            floor: None,
            payload_limit: PayloadLimit::NONE,
        };
        let first = start(definition, &started, 0, now, position(0), &command_context);
        let mut run = Self {
            definition,
            saga: first.saga.clone(),
            participants: Participants::new(definition, &script),
            script,
            messages: 0,
            inputs: 1,
            parked: 0,
            verdict: None,
            now,
            queue: VecDeque::new(),
            late: VecDeque::new(),
            command_context,
        };
        run.take(first, 0);
        run
    }

    /// Performs the next event. Returns false when none is left.
    fn goes_on(&mut self) -> bool {
        let due = self.script.action.take_if(|(at, _)| *at <= self.inputs);
        if let Some((_, kind)) = due {
            self.verdict = self.ask(kind);
            return true;
        }
        if let Some(message) = self.queue.pop_front() {
            self.meet(message);
            return true;
        }
        if self.fire_timer() {
            return true;
        }
        if matches!(self.saga.status, SagaStatus::Parked { .. }) && self.parked < RETRIES_LIMIT {
            self.parked += 1;
            self.ask(ActionKind::retry());
            return true;
        }
        // Nothing else is left to do, so the late messages arrive.
        match self.late.pop_front() {
            Some(message) => {
                self.deliver(message);
                true
            }
            None => false,
        }
    }

    /// Takes a message from the queue, and applies the script's mishap to it.
    fn meet(&mut self, message: Message) {
        let place = self.messages;
        self.messages += 1;
        if self.is_silenced(&message) {
            self.late.push_back(message);
            return;
        }
        let mishap = self.script.mishap.filter(|(at, _)| *at == place);
        match mishap.map(|(_, mishap)| mishap) {
            None => self.deliver(message),
            Some(Mishap::Duplicated) => {
                self.deliver(message.clone());
                self.deliver(message);
            }
            Some(Mishap::Dropped) => {}
            Some(Mishap::Late) => self.late.push_back(message),
        }
    }

    fn is_silenced(&mut self, message: &Message) -> bool {
        let Some(silence) = &mut self.script.silence else {
            return false;
        };
        let (step, direction, is_done) = match message {
            Message::Command(command) => (&command.step, command.direction, false),
            Message::Reply(reply) => (&reply.step, reply.direction, true),
        };
        let hit = silence.times > 0
            && silence.is_done == is_done
            && silence.step == *step
            && silence.direction == direction;
        silence.times -= u32::from(hit);
        hit
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Command(command) => {
                let reply = self.participants.handle(&command);
                self.queue.push_back(Message::Reply(reply));
            }
            Message::Reply(reply) => {
                // A reply that does not apply is expected in a run, and is not an error.
                self.apply(Input::Reply(reply)).ok();
            }
        }
    }

    /// Fires the next timer. Deadlines are excluded: they do not fire in these runs.
    fn fire_timer(&mut self) -> bool {
        let armed = timers(self.definition, &self.saga)
            .into_iter()
            .filter(|timer| timer.kind != TimerKind::Deadline)
            .min_by_key(|timer| timer.due_at);
        let Some(timer) = armed else { return false };
        self.now = self.now.max(timer.due_at);
        let due = TimerDue {
            saga_id: self.saga.id,
            kind: timer.kind,
            part: timer.part,
            verdict: match timer.participant {
                Some(_) => PickUpStatus::PickedUp,
                None => PickUpStatus::Unanswered,
            },
            picked_up_at: None,
            trace: Trace::default(),
        };
        let applied = self.apply(Input::Timer(due));
        assert!(applied.is_ok(), "an armed timer is stale: {}", self.story());
        true
    }

    fn ask(&mut self, kind: ActionKind) -> Option<ActionVerdict> {
        let action = OperatorAction {
            saga_id: self.saga.id,
            action_id: Uuid::from_u128(self.inputs as u128),
            kind,
            actor: "sweep".to_owned(),
            reason: "the script says so".to_owned(),
            if_version: None,
            trace: Trace::default(),
        };
        self.apply(Input::Operator(action)).ok().flatten()
    }

    fn apply(&mut self, input: Input) -> Result<Option<ActionVerdict>, NotApplied> {
        let offset = self.inputs;
        self.inputs += 1;
        let event = SagaEvent {
            at: self.now,
            position: position(offset),
            input,
        };
        let before = self.saga.sequence;
        let mut made = transition(
            self.definition,
            &self.saga,
            &event,
            None,
            &self.command_context,
        )?;
        let verdict = made.verdict.take();
        self.saga = made.saga.clone();
        let events = redelivery(&self.saga, position(offset));
        assert_eq!(events, Some(&made.entry.events[..]), "{}", self.story());
        self.take(made, before);
        Ok(verdict)
    }

    fn take(&mut self, made: Transition, before: u64) {
        let numbers = made.entry.events.iter().map(|event| event.sequence);
        assert!(
            numbers.eq(before + 1..=self.saga.sequence),
            "{}",
            self.story()
        );
        self.check_pivot();
        let commands = made.commands.into_iter().map(|sent| sent.command);
        self.queue.extend(commands.map(Message::Command));
    }

    /// Asserts that nothing is compensated while the pivot is done or may still be done.
    fn check_pivot(&self) {
        let Some(pivot) = self.definition.pivot() else {
            return;
        };
        let goes_back = self.saga.steps.iter().any(|step| {
            matches!(
                step.state,
                StepState::Compensating(_) | StepState::Compensated
            )
        });
        let is_resolved = matches!(
            self.saga.steps[pivot].state,
            StepState::Failed { .. } | StepState::NotDone | StepState::Skipped
        );
        let is_left = matches!(self.saga.status, SagaStatus::Abandoned { .. });
        assert!(!goes_back || is_resolved || is_left, "{}", self.story());
    }

    /// Asserts that every effect is there once, or that every effect is compensated once. Steps that a person completed
    /// or skipped count as done.
    #[track_caller]
    fn check_clean_slate(&self) {
        for step in &self.definition.steps {
            let ledger = self.participants.ledger(&step.name);
            let (done, undone) = (ledger.done, ledger.undone);
            let is_clean = match &self.saga.status {
                SagaStatus::Completed => {
                    done == u32::from(!self.was_settled(&step.name)) && undone == 0
                }
                SagaStatus::Compensated => done == undone && done <= 1,
                // Only a person's action leaves effects behind.
                SagaStatus::Abandoned { .. } => done <= 1 && undone <= done,
                SagaStatus::Running | SagaStatus::Compensating | SagaStatus::Parked { .. } => false,
            };
            assert!(
                is_clean,
                "'{}' is done {done} times and undone {undone} times: {}",
                step.name,
                self.story()
            );
            assert!(
                step.kind == StepKind::Compensatable || undone == 0,
                "'{}' cannot be undone",
                step.name
            );
        }
        assert!(timers(self.definition, &self.saga).is_empty());
    }

    /// Returns true if a person has completed or skipped the step.
    fn was_settled(&self, name: &str) -> bool {
        let mut events = self.saga.log.iter().flat_map(|entry| &entry.events);
        events.any(|event| {
            matches!(
                &event.kind,
                LifecycleKind::StepCompleted { step } | LifecycleKind::StepSkipped { step }
                    if step == name
            )
        })
    }

    pub fn has_turned_round(&self) -> bool {
        self.saga.cause.is_some()
    }

    fn story(&self) -> String {
        let events = self.saga.log.iter().flat_map(|entry| &entry.events);
        let lines: Vec<String> = events.map(|event| format!("  {:?}", event.kind)).collect();
        format!(
            "{} is {:?} with {:?}\n{}",
            self.definition.name,
            self.saga.status,
            self.script,
            lines.join("\n")
        )
    }
}

/// Returns the attempts of a step's retry policy, or 0 if the step has no such command.
pub fn attempts(definition: &SagaDefinition, step: &str, direction: Direction) -> u32 {
    let (_, step) = definition.step(step).expect("a step of the definition");
    let spec = match direction {
        Direction::Forward | Direction::Resolve => step.action.as_ref(),
        Direction::Compensation => step.compensation.as_ref(),
    };
    spec.map_or(0, |spec| spec.retry.attempts)
}

fn position(offset: usize) -> Position {
    Position {
        partition: 0,
        offset: offset as i64,
        at_ms: 0,
    }
}
