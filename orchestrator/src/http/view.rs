//! From a saga's state and log to what people read.

use super::model::{
    AttemptView, FaultView, LegalActionView, SagaSummary, SagaView, StepView, WaitingView,
};
use crate::store::listing::{Found, SagaLine};
use chrono::{DateTime, SecondsFormat, Utc};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    instance::{
        Cause, Delivery, LifecycleEvent, LifecycleKind, PickUp, SagaInstance, SagaStatus,
        StepInstance, StepState, WaitingOn,
    },
    message::{Direction, DuePart, Fault},
    transition::{self, LegalAction},
};

/// One saga, whole.
pub fn saga(definition: &SagaDefinition, found: &Found) -> SagaView {
    let instance = &found.instance;
    let parked = match &instance.status {
        SagaStatus::Parked { step, reason, .. } => Some(fault_of(Some(step), reason)),
        SagaStatus::Running
        | SagaStatus::Compensating
        | SagaStatus::Completed
        | SagaStatus::Compensated
        | SagaStatus::Abandoned { .. } => None,
    };
    let abandoned = match &instance.status {
        SagaStatus::Abandoned { reason } => Some(reason.clone()),
        SagaStatus::Running
        | SagaStatus::Compensating
        | SagaStatus::Parked { .. }
        | SagaStatus::Completed
        | SagaStatus::Compensated => None,
    };
    let steps = definition.steps.iter().zip(&instance.steps);
    SagaView {
        id: instance.id.0,
        definition: instance.definition.clone(),
        definition_version: instance.definition_version,
        definition_hash: instance.definition_hash.0.clone(),
        status: instance.status.as_str().to_owned(),
        parked,
        abandoned,
        cause: instance.cause.as_ref().map(cause),
        business_key: instance.business_key.clone(),
        correlation_id: instance.trace.correlation_id.clone(),
        version: instance.sequence,
        home_partition: instance.home_partition,
        started_at: instance.started_at,
        deadline_at: instance.deadline_at,
        changed_at: instance.changed_at,
        ended_at: found.ended_at,
        waiting_on: waiting(transition::waiting_on(definition, instance)),
        legal_actions: transition::legal_actions(definition, instance)
            .into_iter()
            .map(legal)
            .collect(),
        input: (*instance.input).clone(),
        steps: steps
            .map(|(step, state)| step_view(step, state, instance))
            .collect(),
    }
}

fn legal(action: LegalAction) -> LegalActionView {
    LegalActionView {
        action: action.action.to_string(),
        step: action.step,
        compensation: action.compensation,
        pending: action.pending,
    }
}

/// The events of a saga, oldest first.
pub fn events(instance: &SagaInstance) -> impl Iterator<Item = &LifecycleEvent> {
    instance.log.iter().flat_map(|entry| &entry.events)
}

/// A command whose row does not say yet whether it was picked up, and which a saga seems to wait for.
pub fn unseen<'a>(
    definition: &'a SagaDefinition,
    instance: &SagaInstance,
    waiting: &WaitingView,
) -> Option<(DuePart, &'a str, DateTime<Utc>)> {
    let name = waiting
        .step
        .as_deref()
        .filter(|_| waiting.kind == "reply")?;
    let (index, step) = definition.step(name)?;
    match instance.steps.get(index)?.state.delivery()? {
        (
            direction,
            Delivery::InFlight {
                attempt,
                sent_at,
                pick_up: PickUp::Unseen,
                ..
            },
        ) => {
            let part = DuePart {
                step: name.to_owned(),
                direction,
                attempt: *attempt,
            };
            Some((part, &step.participant, *sent_at))
        }
        (
            _,
            Delivery::InFlight {
                pick_up: PickUp::Queued { .. } | PickUp::Seen { .. },
                ..
            }
            | Delivery::BackingOff { .. }
            | Delivery::UsedUp { .. },
        ) => None,
    }
}

/// The same wait, now that the group is known not to have consumed the command.
pub fn queued(mut waiting: WaitingView, participant: &str, sent_at: DateTime<Utc>) -> WaitingView {
    "queued".clone_into(&mut waiting.kind);
    waiting.since = sent_at;
    waiting.text = format!("not picked up by {participant}, since {}", seconds(sent_at));
    waiting
}

pub fn waiting(on: WaitingOn) -> WaitingView {
    WaitingView {
        kind: on.kind,
        participant: on.participant,
        step: on.step,
        attempt: on.attempt,
        since: on.since,
        next_at: on.next_at,
        text: on.text,
    }
}

/// A line of a listing, from its columns alone.
pub fn summary(line: SagaLine) -> SagaSummary {
    let waiting_on = match (&line.waiting_kind, line.waiting_since) {
        (Some(kind), Some(since)) => Some(WaitingView {
            kind: kind.clone(),
            participant: line.waiting_on.clone(),
            step: None,
            attempt: line.attempt.map(i32::cast_unsigned),
            since,
            next_at: line.next_due.filter(|_| kind != "person"),
            text: sentence(
                kind,
                line.waiting_on.as_deref(),
                since,
                line.last_error.as_deref(),
            ),
        }),
        (Some(_), None) | (None, _) => None,
    };
    SagaSummary {
        id: line.id,
        definition: line.definition,
        definition_version: line.definition_version.cast_unsigned(),
        status: line.status,
        business_key: line.business_key,
        correlation_id: line.correlation_id,
        started_at: line.started_at,
        ended_at: line.ended_at,
        waiting_on,
        last_error: line.last_error,
    }
}

fn sentence(
    kind: &str,
    participant: Option<&str>,
    since: DateTime<Utc>,
    error: Option<&str>,
) -> String {
    let who = participant.unwrap_or("a participant");
    let since = seconds(since);
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    match kind {
        "reply" => format!("waiting for {who} to answer, since {since}"),
        "queued" => format!("not picked up by {who}, since {since}"),
        "backoff" => format!("retrying {who}, since {since}{why}"),
        "resolve" => format!("asking {who} what became of a step, since {since}"),
        "person" => format!("needs a person, since {since}{why}"),
        other => format!("{other}, since {since}"),
    }
}

fn seconds(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn fault_of(step: Option<&String>, fault: &Fault) -> FaultView {
    FaultView {
        step: step.cloned(),
        code: fault.code.clone(),
        message: fault.message.clone(),
    }
}

fn cause(cause: &Cause) -> FaultView {
    FaultView {
        step: cause.step.clone(),
        code: cause.code.clone(),
        message: cause.message.clone(),
    }
}

/// The word for a kind, as in definitions.
pub fn kind(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Compensatable => "compensatable",
        StepKind::Pivot => "pivot",
        StepKind::Retriable => "retriable",
    }
}

fn step_view(step: &Step, state: &StepInstance, instance: &SagaInstance) -> StepView {
    StepView {
        name: step.name.clone(),
        kind: kind(step.kind).to_owned(),
        participant: step.participant.clone(),
        state: state_word(&state.state).to_owned(),
        done_by_starter: step.action.is_none(),
        result: state.result.as_deref().cloned(),
        fault: state_fault(&state.state).map(|fault| fault_of(None, fault)),
        attempts: attempts(&step.name, instance),
    }
}

fn state_word(state: &StepState) -> &'static str {
    match state {
        StepState::Waiting => "waiting",
        StepState::Running(_) => "running",
        StepState::Resolving(_) => "resolving",
        StepState::Succeeded => "succeeded",
        StepState::Failed { .. } => "failed",
        StepState::NotDone => "not_done",
        StepState::Unknown => "unknown",
        StepState::Compensating(_) => "compensating",
        StepState::Compensated => "compensated",
        StepState::CompensationSkipped { .. } => "compensation_skipped",
        StepState::Skipped => "skipped",
    }
}

fn state_fault(state: &StepState) -> Option<&Fault> {
    match state {
        StepState::Failed { fault } => Some(fault),
        StepState::Running(delivery)
        | StepState::Resolving(delivery)
        | StepState::Compensating(delivery) => match delivery {
            Delivery::BackingOff { fault, .. } | Delivery::UsedUp { fault, .. } => Some(fault),
            Delivery::InFlight { .. } => None,
        },
        StepState::Waiting
        | StepState::Succeeded
        | StepState::NotDone
        | StepState::Unknown
        | StepState::Compensated
        | StepState::CompensationSkipped { .. }
        | StepState::Skipped => None,
    }
}

/// Every command sent for a step, derived from the log.
fn attempts(step: &str, instance: &SagaInstance) -> Vec<AttemptView> {
    let mut attempts: Vec<AttemptView> = Vec::new();
    for event in events(instance) {
        note(&mut attempts, step, event);
    }
    attempts
}

fn note(attempts: &mut Vec<AttemptView>, step: &str, event: &LifecycleEvent) {
    let at = event.at;
    match &event.kind {
        LifecycleKind::CommandSent { part, command, .. } if part.step == step => {
            // Sent again with the id it had: the same attempt.
            if find(attempts, part).is_none() {
                attempts.push(sent(part, command, at));
            }
        }
        LifecycleKind::CommandQueued { part } if part.step == step => {
            with(attempts, part, |attempt| attempt.queued_at = Some(at));
        }
        LifecycleKind::CommandPickedUp { part } if part.step == step => {
            with(attempts, part, |attempt| attempt.picked_up_at = Some(at));
        }
        LifecycleKind::StepSucceeded { part } | LifecycleKind::LateReply { part }
            if part.step == step =>
        {
            with(attempts, part, |attempt| attempt.end(at, "success", None));
        }
        LifecycleKind::StepFailed { part, fault } if part.step == step => {
            with(attempts, part, |attempt| {
                attempt.end(at, "failure", Some(fault));
            });
        }
        LifecycleKind::StepErrored {
            part,
            fault,
            retry_at,
        } if part.step == step => {
            with(attempts, part, |attempt| {
                attempt.end(at, "error", Some(fault));
                attempt.retry_at = *retry_at;
            });
        }
        LifecycleKind::StepTimedOut { part } if part.step == step => {
            with(attempts, part, |attempt| attempt.end(at, "timed_out", None));
        }
        LifecycleKind::StepCompensated { step: name } if name == step => {
            last(attempts, Direction::Compensation, |attempt| {
                attempt.end(at, "success", None);
            });
        }
        LifecycleKind::StepNotDone { step: name } if name == step => {
            last(attempts, Direction::Resolve, |attempt| {
                attempt.end(at, "not_done", None);
            });
        }
        LifecycleKind::Started
        | LifecycleKind::CommandSent { .. }
        | LifecycleKind::CommandQueued { .. }
        | LifecycleKind::CommandPickedUp { .. }
        | LifecycleKind::StepSucceeded { .. }
        | LifecycleKind::StepFailed { .. }
        | LifecycleKind::StepErrored { .. }
        | LifecycleKind::StepTimedOut { .. }
        | LifecycleKind::ResolveStarted { .. }
        | LifecycleKind::StepNotDone { .. }
        | LifecycleKind::CompensationStarted { .. }
        | LifecycleKind::StepCompensated { .. }
        | LifecycleKind::StepCompleted { .. }
        | LifecycleKind::StepSkipped { .. }
        | LifecycleKind::CompensationSkipped { .. }
        | LifecycleKind::LateReply { .. }
        | LifecycleKind::DeadlinePassed
        | LifecycleKind::ActionDecided { .. }
        | LifecycleKind::Parked { .. }
        | LifecycleKind::Unparked { .. }
        | LifecycleKind::Completed
        | LifecycleKind::Compensated { .. }
        | LifecycleKind::Abandoned { .. } => {}
    }
}

fn sent(part: &DuePart, command: &str, at: DateTime<Utc>) -> AttemptView {
    AttemptView {
        direction: part.direction.as_str().to_owned(),
        attempt: part.attempt,
        command: command.to_owned(),
        sent_at: at,
        queued_at: None,
        picked_up_at: None,
        ended_at: None,
        outcome: None,
        fault: None,
        retry_at: None,
    }
}

fn find<'a>(attempts: &'a mut [AttemptView], part: &DuePart) -> Option<&'a mut AttemptView> {
    attempts.iter_mut().rev().find(|attempt| {
        attempt.attempt == part.attempt && attempt.direction == part.direction.as_str()
    })
}

fn with(attempts: &mut [AttemptView], part: &DuePart, change: impl FnOnce(&mut AttemptView)) {
    if let Some(attempt) = find(attempts, part) {
        change(attempt);
    }
}

fn last(attempts: &mut [AttemptView], direction: Direction, change: impl FnOnce(&mut AttemptView)) {
    let found = attempts
        .iter_mut()
        .rev()
        .find(|attempt| attempt.direction == direction.as_str());
    if let Some(attempt) = found {
        change(attempt);
    }
}

impl AttemptView {
    fn end(&mut self, at: DateTime<Utc>, outcome: &str, fault: Option<&Fault>) {
        self.ended_at = Some(at);
        self.outcome = Some(outcome.to_owned());
        self.fault = fault.map(|fault| fault_of(None, fault));
    }
}
