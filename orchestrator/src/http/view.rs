//! Makes the API's views from a saga's state and log.

use super::model::{
    AttemptView, FaultView, LegalActionView, SagaSummary, SagaView, StepView, WaitingView,
};
use crate::store::listing::{FoundSaga, SagaLine};
use chrono::{DateTime, SecondsFormat, Utc};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    instance::{
        Cause, Delivery, LifecycleEvent, LifecycleKind, PickUp, SagaInstance, SagaStatus,
        StepInstance, StepState, WaitingOn,
    },
    message::{CommandRef, Direction, Fault},
    transition::{self, LegalAction},
};

/// Makes the view of one saga with all its steps.
pub fn saga(definition: &SagaDefinition, found: &FoundSaga) -> SagaView {
    let instance = &found.instance;
    let parked = instance.status.parked();
    let parked = parked.map(|(step, reason)| fault_of(Some(step), reason));
    let abandoned = if let SagaStatus::Abandoned { reason } = &instance.status {
        Some(reason.clone())
    } else {
        None
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

/// Returns the events of a saga, oldest first.
pub fn events(instance: &SagaInstance) -> impl Iterator<Item = &LifecycleEvent> {
    instance.log.iter().flat_map(|entry| &entry.events)
}

/// Returns the command that the saga waits for, if its row does not say yet whether the command was picked up.
pub fn unseen<'a>(
    definition: &'a SagaDefinition,
    instance: &SagaInstance,
    waiting: &WaitingView,
) -> Option<(CommandRef, &'a str, DateTime<Utc>)> {
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
            let part = CommandRef {
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

/// Changes a wait for a reply into a wait for the pick-up, once the participant's group is known not to have consumed
/// the command.
pub fn queued(mut waiting: WaitingView, participant: &str, sent_at: DateTime<Utc>) -> WaitingView {
    "queued".clone_into(&mut waiting.kind);
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

/// Makes a line of a listing from its columns alone.
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

fn fault_of(step: Option<&str>, fault: &Fault) -> FaultView {
    FaultView {
        step: step.map(str::to_owned),
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

/// Returns the word for a kind of step, as in definitions.
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
    if let StepState::Failed { fault } = state {
        Some(fault)
    } else {
        state.delivery()?.1.fault()
    }
}

/// Returns every command that was sent for a step, derived from the log.
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
            note_sent(attempts, part, command, at);
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
            with(attempts, part, |one| one.end(at, "failure", Some(fault)));
        }
        LifecycleKind::StepErrored {
            part,
            fault,
            retry_at,
        } if part.step == step => {
            let fault = Some(fault);
            with(attempts, part, |one| {
                one.retry(at, "error", fault, *retry_at);
            });
        }
        LifecycleKind::StepTimedOut { part, retry_at } if part.step == step => {
            with(attempts, part, |one| {
                one.retry(at, "timed_out", None, *retry_at);
            });
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
        | LifecycleKind::Recovered
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

/// Adds a command that was sent. A command that is sent again with the same id belongs to the same attempt.
fn note_sent(attempts: &mut Vec<AttemptView>, part: &CommandRef, command: &str, at: DateTime<Utc>) {
    if find(attempts, part).is_none() {
        attempts.push(sent(part, command, at));
    }
}

fn sent(part: &CommandRef, command: &str, at: DateTime<Utc>) -> AttemptView {
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

fn find<'a>(attempts: &'a mut [AttemptView], part: &CommandRef) -> Option<&'a mut AttemptView> {
    attempts.iter_mut().rev().find(|attempt| {
        attempt.attempt == part.attempt && attempt.direction == part.direction.as_str()
    })
}

fn with(attempts: &mut [AttemptView], part: &CommandRef, change: impl FnOnce(&mut AttemptView)) {
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

    /// Ends the attempt. The next attempt follows at `retry_at`, if the policy has one left.
    fn retry(
        &mut self,
        at: DateTime<Utc>,
        outcome: &str,
        fault: Option<&Fault>,
        retry_at: Option<DateTime<Utc>>,
    ) {
        self.end(at, outcome, fault);
        self.retry_at = retry_at;
    }
}
