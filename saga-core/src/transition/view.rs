//! What a saga waits for: as timers for its owner, and in words for a person.

use super::draft::{command_type, spec};
use crate::{
    definition::{SagaDefinition, Step},
    ids::Timestamp,
    instance::{
        ArmedTimer, Delivery, LifecycleKind, PendingAction, PickUp, SagaInstance, SagaStatus,
        StepInstance, WaitingOn,
    },
    message::{Direction, DuePart, TimerKind, Verdict},
};
use chrono::SecondsFormat;

/// Every timer that must be armed for the saga as it stands.
pub fn timers(definition: &SagaDefinition, saga: &SagaInstance) -> Vec<ArmedTimer> {
    if saga.status.is_ended() {
        return Vec::new();
    }
    let deadline = (!saga.overdue).then_some(ArmedTimer {
        due_at: saga.deadline_at,
        kind: TimerKind::Deadline,
        part: None,
        participant: None,
        sent_at: None,
        known: None,
    });
    let steps = definition
        .steps
        .iter()
        .zip(&saga.steps)
        .filter_map(|(step, instance)| step_timer(step, instance));
    steps.chain(deadline).collect()
}

fn step_timer(step: &Step, instance: &StepInstance) -> Option<ArmedTimer> {
    let (direction, delivery) = instance.state.delivery()?;
    let part = DuePart {
        step: step.name.clone(),
        direction,
        attempt: delivery.attempt(),
    };
    match delivery {
        Delivery::InFlight {
            sent_at,
            due_at,
            pick_up,
            ..
        } => {
            let (participant, known) = match pick_up {
                PickUp::Unseen => (Some(step.participant.clone()), None),
                PickUp::Queued { .. } => (Some(step.participant.clone()), Some(Verdict::Queued)),
                PickUp::Seen { .. } => (None, None),
            };
            Some(ArmedTimer {
                due_at: *due_at,
                kind: TimerKind::Timeout,
                part: Some(part),
                participant,
                sent_at: Some(*sent_at),
                known,
            })
        }
        Delivery::BackingOff { until, .. } => Some(ArmedTimer {
            due_at: *until,
            kind: TimerKind::Backoff,
            part: Some(part),
            participant: None,
            sent_at: None,
            known: None,
        }),
        Delivery::UsedUp { .. } => None,
    }
}

/// Why the saga is not moving.
pub fn waiting_on(definition: &SagaDefinition, saga: &SagaInstance) -> WaitingOn {
    // An abandoned saga's steps stay as they were found, but it waits for nobody.
    let live = if saga.status.is_ended() {
        &[]
    } else {
        definition.steps.as_slice()
    };
    let mut waits: Vec<(u8, WaitingOn)> = live
        .iter()
        .zip(&saga.steps)
        .filter_map(|(step, instance)| step_wait(saga, step, instance))
        .collect();
    // What hinders most comes first; of equals, the first step.
    waits.sort_by_key(|(rank, _)| *rank);
    let others = waits.len().saturating_sub(1);
    match waits.into_iter().next() {
        Some((_, mut first)) => {
            if others > 0 {
                first.text = format!("{} (and {others} more)", first.text);
            }
            first
        }
        None => WaitingOn {
            kind: "nothing".to_owned(),
            participant: None,
            step: None,
            attempt: None,
            since: saga.changed_at,
            next_at: None,
            text: nothing(saga),
        },
    }
}

fn nothing(saga: &SagaInstance) -> String {
    match &saga.status {
        SagaStatus::Abandoned { reason } => {
            format!("abandoned at {}: {reason}", time(saga.changed_at))
        }
        SagaStatus::Running
        | SagaStatus::Compensating
        | SagaStatus::Parked { .. }
        | SagaStatus::Completed
        | SagaStatus::Compensated => {
            format!("{} at {}", saga.status.as_str(), time(saga.changed_at))
        }
    }
}

const PERSON: u8 = 0;
const RESOLVE: u8 = 1;
const QUEUED: u8 = 2;
const BACKOFF: u8 = 3;
const REPLY: u8 = 4;

fn step_wait(saga: &SagaInstance, step: &Step, instance: &StepInstance) -> Option<(u8, WaitingOn)> {
    let (direction, delivery) = instance.state.delivery()?;
    let spec = spec(step, direction)?;
    let attempt = delivery.attempt();
    let wait = Wait {
        saga,
        instance,
        participant: &step.participant,
        command: command_type(spec, direction),
        action: &spec.command_type,
        direction,
        attempt,
    };
    let (rank, kind, since, next_at, text) = match delivery {
        Delivery::UsedUp { fault, .. } => {
            let text = format!(
                "needs a person: {} of '{}': {}",
                match direction {
                    Direction::Forward | Direction::Resolve => "the action",
                    Direction::Compensation => "the compensation",
                },
                step.name,
                fault.message
            );
            let since = since(
                saga,
                |kind| matches!(kind, LifecycleKind::Parked { step: parked, .. } if *parked == step.name),
            );
            (PERSON, "person", since, None, text)
        }
        Delivery::BackingOff { until, fault, .. } => {
            let text = wait.backing_off(*until, &fault.message);
            let since = since(
                saga,
                |kind| matches!(kind, LifecycleKind::StepErrored { part, .. } if part.step == step.name),
            );
            (BACKOFF, "backoff", since, Some(*until), text)
        }
        Delivery::InFlight {
            sent_at,
            due_at,
            pick_up,
            ..
        } => wait.in_flight(*sent_at, *due_at, *pick_up),
    };
    let (rank, kind) = match direction {
        Direction::Resolve => (RESOLVE, "resolve"),
        Direction::Forward | Direction::Compensation => (rank, kind),
    };
    let waiting = WaitingOn {
        kind: kind.to_owned(),
        participant: Some(step.participant.clone()),
        step: Some(step.name.clone()),
        attempt: Some(attempt),
        since,
        next_at,
        text,
    };
    Some((rank, waiting))
}

/// When the newest such event happened: the log tells what the state need not repeat.
fn since(saga: &SagaInstance, is_it: impl Fn(&LifecycleKind) -> bool) -> Timestamp {
    saga.log
        .iter()
        .rev()
        .flat_map(|entry| entry.events.iter().rev())
        .find(|event| is_it(&event.kind))
        .map_or(saga.changed_at, |event| event.at)
}

struct Wait<'a> {
    saga: &'a SagaInstance,
    instance: &'a StepInstance,
    participant: &'a str,
    command: String,
    /// The type of the action that a resolve asks about; the command's own type otherwise.
    action: &'a str,
    direction: Direction,
    attempt: u32,
}

impl Wait<'_> {
    fn backing_off(&self, until: Timestamp, fault: &str) -> String {
        format!(
            "retrying {} at {} (attempt {}), because attempt {} went wrong: {fault}",
            self.command,
            time(until),
            self.attempt + 1,
            self.attempt,
        )
    }

    fn in_flight(
        &self,
        sent_at: Timestamp,
        due_at: Timestamp,
        pick_up: PickUp,
    ) -> (u8, &'static str, Timestamp, Option<Timestamp>, String) {
        let (participant, attempt) = (self.participant, self.attempt);
        match pick_up {
            PickUp::Queued { since } => {
                // Only the deadline ends this wait by itself.
                let next_at = (!self.saga.overdue).then_some(self.saga.deadline_at);
                let text = format!(
                    "not picked up by {participant}, since {}: {} attempt {attempt}",
                    time(since),
                    self.command
                );
                (QUEUED, "queued", since, next_at, text)
            }
            PickUp::Unseen => {
                let text = format!(
                    "{} (attempt {attempt}), sent at {}, looked after at {}",
                    self.question(),
                    time(sent_at),
                    time(due_at)
                );
                (REPLY, "reply", sent_at, Some(due_at), text)
            }
            PickUp::Seen { at } => {
                let text = format!(
                    "{} (attempt {attempt}), picked up at {}, times out at {}",
                    self.question(),
                    time(at),
                    time(due_at)
                );
                (REPLY, "reply", sent_at, Some(due_at), text)
            }
        }
    }

    fn question(&self) -> String {
        match self.direction {
            Direction::Forward | Direction::Compensation => {
                format!(
                    "waiting for {} to answer {}",
                    self.participant, self.command
                )
            }
            Direction::Resolve => {
                let asking = format!(
                    "asking {} whether {} was done",
                    self.participant, self.action
                );
                match (&self.instance.settling, &self.saga.resolve_cause) {
                    (Some(settling), _) => {
                        let PendingAction { actor, action, .. } = &settling.asked;
                        format!("{asking}, because {actor} wants to {action} it")
                    }
                    (None, Some(cause)) => format!("{asking}, because of {}", cause.code),
                    (None, None) => asking,
                }
            }
        }
    }
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
