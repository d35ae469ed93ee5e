//! The fold of one saga: its state while the inputs of a batch are applied, and the records to send because of them.

use super::{
    db_clock::CLOCK_CACHE_TTL,
    outcome::{BatchOutcome, Context, Disposition, Output, SagaChange, StepTime},
    saga_store::{Plan, SagaRow, SettledRow},
    settings::EngineSettings,
    timers::queued_index::QueuedCommand,
};
use chrono::TimeDelta;
use saga_core::{
    definition::{BusinessKey, SagaDefinition},
    ids::Timestamp,
    instance::{
        ActionVerdict, ArmedTimer, LifecycleEvent, LifecycleKind, LifecycleMessage, Position,
        SagaInstance,
    },
    message::{CommandRef, Input, OutgoingRecord, Reply, TimerKind},
    mutant::{self, Mutant},
    transition::{
        self, CommandContext, LegalAction, OutgoingCommand, SagaEvent, Transition,
        commands_in_flight,
    },
};
use std::sync::Arc;

/// The place where a saga was stored when the batch began: in no table, in the table of live sagas, or in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredAs {
    New,
    Live { version: i64 },
    History,
}

/// A saga while the inputs of a batch are applied to it.
pub(super) struct SagaFold {
    stored_as: StoredAs,
    pub(super) instance: SagaInstance,
    definition: Arc<SagaDefinition>,
    pub(super) start_hash: Vec<u8>,
    pub(super) changed: bool,
    send_again: bool,
    pub(super) handled: Vec<(TimerKind, Option<CommandRef>)>,
    commands: Vec<(CommandRef, OutgoingRecord)>,
    events: Vec<OutgoingRecord>,
    /// Actions of earlier inputs that were pending and are now decided.
    pub(super) settled: Vec<SettledRow>,
}

impl SagaFold {
    pub(super) fn new(
        stored_as: StoredAs,
        instance: SagaInstance,
        definition: Arc<SagaDefinition>,
        start_hash: Vec<u8>,
    ) -> Self {
        Self {
            stored_as,
            instance,
            definition,
            start_hash,
            changed: false,
            send_again: false,
            handled: Vec::new(),
            commands: Vec::new(),
            events: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// Returns the actions that an operator may request for the saga now.
    pub(super) fn legal(&self) -> Vec<String> {
        transition::legal_actions(&self.definition, &self.instance)
            .iter()
            .map(LegalAction::to_string)
            .collect()
    }

    /// Applies an input to the saga, or handles it as a redelivery or a duplicate if it does not apply. Returns the
    /// verdict too if the input is an operator's action that applied.
    ///
    /// Clamps the time to the saga's last change if the difference is within the clock's cache time. A larger step back
    /// means that the clock was really set back, and is accepted.
    pub(super) fn decide(
        &mut self,
        context: &Context<'_>,
        now: Timestamp,
        position: Position,
        input: Input,
    ) -> (Disposition, Option<ActionVerdict>) {
        let changed_at = self.instance.changed_at;
        let is_extrapolated =
            changed_at - now <= TimeDelta::from_std(CLOCK_CACHE_TTL).unwrap_or_default();
        let event = SagaEvent {
            at: if is_extrapolated {
                now.max(changed_at)
            } else {
                now
            },
            position,
            input,
        };
        let home = self.instance.home_partition;
        // The committed offset is that of the next record to read, so the offset before it is the last one that was
        // handled.
        let committed = context
            .committed
            .get(&home)
            .filter(|offset| **offset > 0)
            .map(|offset| Position {
                partition: home,
                offset: offset - 1,
                at_ms: 0,
            });
        let decided = transition::transition(
            &self.definition,
            &self.instance,
            &event,
            committed,
            context.command_context,
        );
        match decided {
            Ok(mut made) => {
                let verdict = made.verdict.take();
                self.settle(&made, &event);
                self.apply(context, made, event.at);
                (Disposition::Applied, verdict)
            }
            Err(_not_applied) => (self.on_not_applied(context, event.position), None),
        }
    }

    /// Collects the decisions on earlier actions, whose audit rows still say "pending".
    fn settle(&mut self, made: &Transition, event: &SagaEvent) {
        let own = match &event.input {
            Input::Operator(action) => Some(action.action_id),
            Input::Start(_) | Input::Reply(_) | Input::Timer(_) => None,
        };
        for event in &made.entry.events {
            if let LifecycleKind::ActionDecided {
                action_id, verdict, ..
            } = &event.kind
                && own != Some(*action_id)
            {
                self.settled.push(SettledRow {
                    action_id: *action_id,
                    verdict: verdict.clone(),
                    decided_at: event.at,
                    status_after: made.saga.status.as_str(),
                });
            }
        }
    }

    pub(super) fn apply(&mut self, context: &Context<'_>, made: Transition, at: Timestamp) {
        let Transition {
            saga,
            entry,
            commands,
            verdict: _,
        } = made;
        self.instance = saga;
        self.changed = true;
        let commands = commands.into_iter();
        self.commands
            .extend(commands.map(|command| encode(context.settings, command, at)));
        self.emit_events(context, &entry.events);
    }

    fn emit_events(&mut self, context: &Context<'_>, events: &[LifecycleEvent]) {
        let settings = context.settings;
        let saga = &self.instance;
        let records = events.iter().map(|event| {
            LifecycleMessage::of(saga, event).encode(
                &settings.events_topic,
                &settings.source,
                &saga.trace,
            )
        });
        self.events.extend(records);
    }

    /// Handles an input that does not apply. If the input is a redelivery, sends its events again and notes that the
    /// commands in flight must be resent. Otherwise the input is a plain duplicate.
    pub(super) fn on_not_applied(
        &mut self,
        context: &Context<'_>,
        position: Position,
    ) -> Disposition {
        let Some(events) = transition::redelivery(&self.instance, position) else {
            self.send_again |= mutant::on(Mutant::AnswerEveryStaleInput);
            return Disposition::Duplicate;
        };
        if mutant::on(Mutant::ForgetRedeliveries) {
            return Disposition::Duplicate;
        }
        let events = events.to_vec();
        self.emit_events(context, &events);
        self.send_again = true;
        Disposition::Redelivered
    }

    /// Queues the commands that are in flight now if there was a redelivery, except those that this batch sends anyway.
    pub(super) fn resend_in_flight(&mut self, context: &Context<'_>) {
        if !self.send_again {
            return;
        }
        for (part, record) in in_flight(
            context.settings,
            context.command_context,
            &self.definition,
            &self.instance,
        ) {
            if self.commands.iter().all(|(sent, _)| *sent != part) {
                self.commands.push((part, record));
            }
        }
    }

    pub(super) fn step_time(&self, reply: &Reply, now: Timestamp) -> Option<StepTime> {
        let (index, step) = self.definition.step(&reply.step)?;
        let (direction, delivery) = self.instance.steps.get(index)?.state.delivery()?;
        Some(StepTime {
            definition: self.definition.name.clone(),
            step: step.name.clone(),
            direction,
            milliseconds: (now - delivery.sent_at()?).num_milliseconds(),
        })
    }

    /// Adds the row, the outputs and the change for the timers to the batch's outcome, and the events to `events`.
    pub(super) fn finish(mut self, outcome: &mut BatchOutcome, events: &mut Vec<Output>) {
        let id = self.instance.id;
        let (sent, commands): (Vec<CommandRef>, Vec<OutgoingRecord>) =
            std::mem::take(&mut self.commands).into_iter().unzip();
        let outputs = commands
            .into_iter()
            .zip(&sent)
            .map(|(record, part)| Output {
                record,
                command: Some((id, part.clone())),
            });
        outcome.outputs.extend(outputs);
        events.extend(std::mem::take(&mut self.events).into_iter().map(Output::of));
        outcome.plan.settled.append(&mut self.settled);
        if !self.changed && self.handled.is_empty() && sent.is_empty() {
            return;
        }
        let change = SagaChange {
            id,
            home_partition: self.instance.home_partition,
            timers: transition::timers(&self.definition, &self.instance),
            sent,
            handled: std::mem::take(&mut self.handled),
            ended: self.instance.status.is_ended(),
        };
        self.plan(&mut outcome.plan, &change.timers);
        outcome.changed.push(change);
    }

    fn plan(self, plan: &mut Plan, timers: &[ArmedTimer]) {
        if !self.changed {
            return;
        }
        let ended = self.instance.status.is_ended();
        let version = match self.stored_as {
            StoredAs::New => 0,
            StoredAs::Live { version } => version,
            StoredAs::History => return,
        };
        let row = self.row(version, timers);
        match (version, ended) {
            (0, false) => plan.starts.push(row),
            (0, true) => {
                plan.ends.push(SagaRow {
                    version: 1,
                    ..row.clone()
                });
                plan.starts.push(row);
            }
            (_, false) => plan.updates.push(row),
            (_, true) => plan.ends.push(row),
        }
    }

    fn row(self, version: i64, timers: &[ArmedTimer]) -> SagaRow {
        let comes_due = timers
            .iter()
            .filter(|timer| QueuedCommand::queued(timer).is_none());
        SagaRow {
            version,
            waiting: transition::waiting(&self.definition, &self.instance),
            next_due: comes_due.map(|timer| timer.due_at).min(),
            queued: timers.iter().filter_map(QueuedCommand::queued).collect(),
            last_error: last_error(&self.instance),
            has_key_to_itself: self.definition.business_key == BusinessKey::Unique
                && self.instance.business_key.is_some(),
            start_hash: self.start_hash,
            instance: self.instance,
        }
    }
}

/// Returns the commands of a saga that wait for a reply, encoded as they were sent.
pub(crate) fn in_flight(
    settings: &EngineSettings,
    context: &CommandContext,
    definition: &SagaDefinition,
    instance: &SagaInstance,
) -> Vec<(CommandRef, OutgoingRecord)> {
    commands_in_flight(definition, instance, context)
        .into_iter()
        .map(|outgoing| {
            let sent_at = sent_at(instance, definition, &outgoing.command.step);
            encode(settings, outgoing, sent_at)
        })
        .collect()
}

/// Returns the time that a resent command carries, which is the time at which it was first sent.
fn sent_at(instance: &SagaInstance, definition: &SagaDefinition, step: &str) -> Timestamp {
    definition
        .step(step)
        .and_then(|(index, _)| instance.steps.get(index)?.state.delivery()?.1.sent_at())
        .unwrap_or(instance.changed_at)
}

/// Encodes a command as a record, and names it.
fn encode(
    settings: &EngineSettings,
    outgoing: OutgoingCommand,
    at: Timestamp,
) -> (CommandRef, OutgoingRecord) {
    let topic = settings.participants.topic(&outgoing.participant);
    let command = &outgoing.command;
    let part = CommandRef {
        step: command.step.clone(),
        direction: command.direction,
        attempt: command.attempt,
    };
    (part, outgoing.encode(&topic, &settings.source, at))
}

/// Returns the saga's last error, for the column that operators search: the reason for parking, else the fault of a
/// step, else the saga's cause.
fn last_error(instance: &SagaInstance) -> Option<String> {
    let mut steps = instance.steps.iter();
    let of_step = || steps.find_map(|step| step.state.delivery()?.1.fault());
    let parked = instance.status.parked().map(|(_, reason)| reason);
    let fault = parked
        .or_else(of_step)
        .map(|fault| (&fault.code, &fault.message));
    let of_saga = || {
        Some((
            &instance.cause.as_ref()?.code,
            &instance.cause.as_ref()?.message,
        ))
    };
    let (code, message) = fault.or_else(of_saga)?;
    Some(format!("{code}: {message}"))
}
