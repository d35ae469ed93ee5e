//! One saga while the inputs of a batch are folded onto it: its state, and what is to be sent because of it.

use super::{
    db_clock::TOLD_FOR,
    fold::{Context, Fate, StepTime, Touched},
    oversize,
    saga_store::{Plan, SagaRow, SettledRow},
    timers::watchlist::Watched,
};
use chrono::TimeDelta;
use saga_core::{
    definition::SagaDefinition,
    ids::{SagaId, Timestamp},
    instance::{
        ActionVerdict, Delivery, LifecycleEvent, LifecycleKind, LogEntry, Position, SagaInstance,
        SagaStatus, Unchanging,
    },
    message::{Command, Direction, DuePart, LifecycleMessage, OutgoingRecord, Reply, TimerKind},
    mutant::{self, Mutant},
    transition::{
        self, EventBody, LegalAction, OutgoingCommand, SagaEvent, Transition, commands_in_flight,
    },
};
use serde_json::Value;
use std::sync::Arc;

/// Where a saga stood when the batch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stood {
    Nowhere,
    Live { version: i64 },
    History,
}

/// A saga while its inputs are folded.
pub(super) struct Work {
    stood: Stood,
    pub(super) instance: SagaInstance,
    definition: Arc<SagaDefinition>,
    pub(super) start_hash: Vec<u8>,
    pub(super) changed: bool,
    send_again: bool,
    /// Which commands `commands` are.
    sent: Vec<DuePart>,
    pub(super) handled: Vec<(TimerKind, Option<DuePart>)>,
    pub(super) commands: Vec<OutgoingRecord>,
    pub(super) events: Vec<OutgoingRecord>,
    /// Actions of earlier inputs that were pending and are decided now.
    pub(super) settled: Vec<SettledRow>,
}

impl Work {
    pub(super) fn new(
        stood: Stood,
        instance: SagaInstance,
        definition: Arc<SagaDefinition>,
        start_hash: Vec<u8>,
    ) -> Self {
        Self {
            stood,
            instance,
            definition,
            start_hash,
            changed: false,
            send_again: false,
            sent: Vec::new(),
            handled: Vec::new(),
            commands: Vec::new(),
            events: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// What could be asked of the saga now.
    pub(super) fn legal(&self) -> Vec<String> {
        transition::legal_actions(&self.definition, &self.instance)
            .iter()
            .map(LegalAction::to_string)
            .collect()
    }

    /// A saga's instants do not run backwards because the clock was told between two looks. One that somebody has set back
    /// is believed.
    pub(super) fn decide(
        &mut self,
        context: &Context<'_>,
        mut event: SagaEvent,
    ) -> (Fate, Option<ActionVerdict>) {
        if self.instance.changed_at - event.at <= TimeDelta::from_std(TOLD_FOR).unwrap_or_default()
        {
            event.at = event.at.max(self.instance.changed_at);
        }
        let home = self.instance.home_partition;
        // The committed offset is the next one to be read.
        let committed = context
            .committed
            .get(&home)
            .filter(|offset| **offset > 0)
            .map(|offset| Position {
                partition: home,
                offset: offset - 1,
            });
        let decided = transition::transition(
            &self.definition,
            &self.instance,
            &event,
            committed,
            context.outbound,
        );
        match decided {
            Ok(mut made) => {
                let verdict = made.verdict.take();
                self.settle(&made, &event);
                self.apply(context, made, event.at);
                (Fate::Applied, verdict)
            }
            Err(_not_applied) => (self.again(context, event.position), None),
        }
    }

    /// Notes the decisions on earlier actions: their audit rows say "pending" so far.
    fn settle(&mut self, made: &Transition, event: &SagaEvent) {
        let own = match &event.body {
            EventBody::ActionAsked(action) => Some(action.action_id),
            EventBody::CommandReplied(_) | EventBody::TimerFired(_) => None,
        };
        for told in &made.entry.events {
            if let LifecycleKind::ActionDecided {
                action_id, verdict, ..
            } = &told.kind
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
            mut entry,
            commands,
            verdict: _,
        } = made;
        self.instance = saga;
        self.changed = true;
        for command in commands {
            self.send(context, &command, &mut entry, at);
        }
        self.tell(context, &entry.events);
    }

    /// Queues a command, or parks the saga if no broker would take it.
    fn send(
        &mut self,
        context: &Context<'_>,
        outgoing: &OutgoingCommand,
        entry: &mut Unchanging<LogEntry>,
        at: Timestamp,
    ) {
        let command = &outgoing.command;
        match encode(context, outgoing, at) {
            Ok(record) => self.queue(record, part_of(command)),
            Err(payload_bytes) => oversize::park(
                &self.definition,
                &mut self.instance,
                entry,
                command,
                payload_bytes,
                at,
            ),
        }
    }

    fn queue(&mut self, record: OutgoingRecord, part: DuePart) {
        self.sent.push(part);
        self.commands.push(record);
    }

    fn tell(&mut self, context: &Context<'_>, events: &[LifecycleEvent]) {
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

    /// An input that does not apply: what it did once is told again, or it is a plain duplicate.
    pub(super) fn again(&mut self, context: &Context<'_>, position: Position) -> Fate {
        let Some(events) = transition::redelivery(&self.instance, position) else {
            self.send_again |= mutant::on(Mutant::AnswerEveryStaleInput);
            return Fate::Duplicate;
        };
        if mutant::on(Mutant::ForgetRedeliveries) {
            return Fate::Duplicate;
        }
        let events = events.to_vec();
        self.tell(context, &events);
        self.send_again = true;
        Fate::Redelivered
    }

    /// After a redelivery: the commands in flight now, except those that this batch sends anyway.
    pub(super) fn send_in_flight(&mut self, context: &Context<'_>) {
        if !self.send_again {
            return;
        }
        for outgoing in commands_in_flight(&self.definition, &self.instance, context.outbound) {
            let part = part_of(&outgoing.command);
            if self.sent.contains(&part) {
                continue;
            }
            let sent_at = sent_at(&self.instance, &self.definition, &part);
            if let Ok(record) = encode(context, &outgoing, sent_at) {
                self.queue(record, part);
            }
        }
    }

    pub(super) fn step_time(&self, reply: &Reply, now: Timestamp) -> Option<StepTime> {
        let (index, step) = self.definition.step(&reply.step)?;
        let (direction, delivery) = self.instance.steps.get(index)?.state.delivery()?;
        match delivery {
            Delivery::InFlight { sent_at, .. } => Some(StepTime {
                definition: self.definition.name.clone(),
                step: step.name.clone(),
                direction,
                milliseconds: (now - *sent_at).num_milliseconds(),
            }),
            Delivery::BackingOff { .. } | Delivery::UsedUp { .. } => None,
        }
    }

    /// Whether anything happened that the timers must know of.
    pub(super) fn concerns_timers(&self) -> bool {
        self.changed || !self.handled.is_empty() || !self.sent.is_empty()
    }

    pub(super) fn touched(&mut self, id: SagaId) -> Touched {
        Touched {
            id,
            home_partition: self.instance.home_partition,
            timers: transition::timers(&self.definition, &self.instance),
            sent: std::mem::take(&mut self.sent),
            handled: std::mem::take(&mut self.handled),
            ended: self.instance.status.is_ended(),
        }
    }

    pub(super) fn plan(self, plan: &mut Plan) {
        if !self.changed {
            return;
        }
        let ended = self.instance.status.is_ended();
        let version = match self.stood {
            Stood::Nowhere => 0,
            Stood::Live { version } => version,
            Stood::History => return,
        };
        let row = self.row(version);
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

    fn row(self, version: i64) -> SagaRow {
        let timers = transition::timers(&self.definition, &self.instance);
        let comes_due = timers
            .iter()
            .filter(|timer| Watched::queued(timer).is_none());
        SagaRow {
            version,
            waiting: transition::waiting(&self.definition, &self.instance),
            next_due: comes_due.map(|timer| timer.due_at).min(),
            queued: timers.iter().filter_map(Watched::queued).collect(),
            last_error: last_error(&self.instance),
            start_hash: self.start_hash,
            instance: self.instance,
        }
    }
}

/// The commands of a saga that wait for an answer, as they were sent.
pub(super) fn in_flight(
    context: &Context<'_>,
    definition: &SagaDefinition,
    instance: &SagaInstance,
) -> Vec<OutgoingRecord> {
    commands_in_flight(definition, instance, context.outbound)
        .into_iter()
        .filter_map(|outgoing| {
            let sent_at = sent_at(instance, definition, &part_of(&outgoing.command));
            encode(context, &outgoing, sent_at).ok()
        })
        .collect()
}

fn part_of(command: &Command) -> DuePart {
    DuePart {
        step: command.step.clone(),
        direction: command.direction,
        attempt: command.attempt,
    }
}

/// A command sent again bears the time at which it was sent first.
fn sent_at(instance: &SagaInstance, definition: &SagaDefinition, part: &DuePart) -> Timestamp {
    let delivery = definition
        .step(&part.step)
        .and_then(|(index, _)| instance.steps.get(index))
        .and_then(|step| step.state.delivery());
    match delivery {
        Some((_, Delivery::InFlight { sent_at, .. })) => *sent_at,
        Some((_, Delivery::BackingOff { .. } | Delivery::UsedUp { .. })) | None => {
            instance.changed_at
        }
    }
}

/// The record of a command, or its payload's size if that is more than the broker takes. A resolve is answered
/// without looking at its payload, so a large one goes without.
fn encode(
    context: &Context<'_>,
    outgoing: &OutgoingCommand,
    at: Timestamp,
) -> Result<OutgoingRecord, usize> {
    let settings = context.settings;
    let OutgoingCommand {
        participant,
        command,
    } = outgoing;
    let topic = settings.participants.topic(participant);
    let record = command.encode(&topic, &settings.source, at);
    if oversize::fits(record.payload.len(), settings.message_limit_bytes) {
        return Ok(record);
    }
    match command.direction {
        Direction::Resolve => {
            let command = Command {
                payload: Value::Null,
                ..command.clone()
            };
            Ok(command.encode(&topic, &settings.source, at))
        }
        Direction::Forward | Direction::Compensation => Err(record.payload.len()),
    }
}

/// What last went wrong, for the column that operators search.
fn last_error(instance: &SagaInstance) -> Option<String> {
    let of_step = instance
        .steps
        .iter()
        .find_map(|step| match step.state.delivery() {
            Some((_, Delivery::BackingOff { fault, .. } | Delivery::UsedUp { fault, .. })) => {
                Some((fault.code.as_str(), fault.message.as_str()))
            }
            Some((_, Delivery::InFlight { .. })) | None => None,
        });
    let parked = match &instance.status {
        SagaStatus::Parked { reason, .. } => Some((reason.code.as_str(), reason.message.as_str())),
        SagaStatus::Running
        | SagaStatus::Compensating
        | SagaStatus::Completed
        | SagaStatus::Compensated
        | SagaStatus::Abandoned { .. } => None,
    };
    let cause = instance
        .cause
        .as_ref()
        .map(|cause| (cause.code.as_str(), cause.message.as_str()));
    parked
        .or(of_step)
        .or(cause)
        .map(|(code, message)| format!("{code}: {message}"))
}
