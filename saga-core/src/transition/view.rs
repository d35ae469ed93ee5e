//! Says what a saga waits for: as timers for its owner, and in words for a person.

use super::command::{command_type, spec};
use crate::{
    definition::{CommandSpec, SagaDefinition, Step},
    ids::Timestamp,
    instance::{
        ArmedTimer, Delivery, LifecycleKind, PendingAction, PickUp, SagaInstance, SagaStatus,
        Settling, StepInstance, Waiting, WaitingOn,
    },
    message::{CommandRef, Direction, PickUpStatus, TimerKind},
};
use chrono::SecondsFormat;

/// Returns every timer that must be armed for the saga in its current state.
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
    let part = CommandRef {
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
                PickUp::Queued { .. } => {
                    (Some(step.participant.clone()), Some(PickUpStatus::Queued))
                }
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

/// Returns why the saga is not moving, as far as its row shows.
pub fn waiting(definition: &SagaDefinition, saga: &SagaInstance) -> Waiting {
    columns(saga, waits(definition, saga).first())
}

fn columns(saga: &SagaInstance, first: Option<&Wait<'_>>) -> Waiting {
    Waiting {
        kind: first.map_or("nothing", Wait::kind),
        participant: first.map(|wait| wait.step.participant.clone()),
        attempt: first.map(Wait::attempt),
        since: first.map_or(saga.changed_at, Wait::since),
    }
}

/// Returns why the saga is not moving, in words for a person.
pub fn waiting_on(definition: &SagaDefinition, saga: &SagaInstance) -> WaitingOn {
    let waits = waits(definition, saga);
    let first = waits.first();
    let Waiting {
        kind,
        participant,
        attempt,
        since,
    } = columns(saga, first);
    let text = match waits.as_slice() {
        [] => nothing(saga),
        [only] => only.text(),
        [first, others @ ..] => format!("{} (and {} more)", first.text(), others.len()),
    };
    WaitingOn {
        kind: kind.to_owned(),
        participant,
        step: first.map(|wait| wait.step.name.clone()),
        attempt,
        since,
        next_at: first.and_then(Wait::next_at),
        text,
    }
}

/// Returns all commands that the saga waits for. The most serious wait comes first; of equals, the first step.
fn waits<'a>(definition: &'a SagaDefinition, saga: &'a SagaInstance) -> Vec<Wait<'a>> {
    // The steps of an abandoned saga keep their state, but the saga waits for nothing.
    if saga.status.is_ended() {
        return Vec::new();
    }
    let steps = definition.steps.iter().zip(&saga.steps);
    let mut waits: Vec<Wait<'_>> = steps
        .filter_map(|(step, instance)| Wait::of(saga, step, instance))
        .collect();
    waits.sort_by_key(Wait::rank);
    waits
}

fn nothing(saga: &SagaInstance) -> String {
    let at = time(saga.changed_at);
    if let SagaStatus::Abandoned { reason } = &saga.status {
        format!("abandoned at {at}: {reason}")
    } else {
        format!("{} at {at}", saga.status.as_str())
    }
}

const PERSON: &str = "person";
const RESOLVE: &str = "resolve";
const QUEUED: &str = "queued";
const BACKOFF: &str = "backoff";
const REPLY: &str = "reply";
/// The kinds of waits, the most serious first.
const RANKS: [&str; 5] = [PERSON, RESOLVE, QUEUED, BACKOFF, REPLY];

/// Returns when the newest matching event happened. The log has that instant, so the state need not repeat it.
fn since(saga: &SagaInstance, is_it: impl Fn(&LifecycleKind) -> bool) -> Timestamp {
    saga.log
        .iter()
        .rev()
        .flat_map(|entry| entry.events.iter().rev())
        .find(|event| is_it(&event.kind))
        .map_or(saga.changed_at, |event| event.at)
}

/// A command that a saga waits for.
struct Wait<'a> {
    saga: &'a SagaInstance,
    step: &'a Step,
    instance: &'a StepInstance,
    spec: &'a CommandSpec,
    direction: Direction,
    delivery: &'a Delivery,
}

impl<'a> Wait<'a> {
    fn of(saga: &'a SagaInstance, step: &'a Step, instance: &'a StepInstance) -> Option<Self> {
        let (direction, delivery) = instance.state.delivery()?;
        Some(Self {
            saga,
            step,
            instance,
            spec: spec(step, direction)?,
            direction,
            delivery,
        })
    }

    fn attempt(&self) -> u32 {
        self.delivery.attempt()
    }

    fn kind(&self) -> &'static str {
        match self.delivery {
            Delivery::UsedUp { .. } => PERSON,
            Delivery::BackingOff { .. } | Delivery::InFlight { .. }
                if self.direction == Direction::Resolve =>
            {
                RESOLVE
            }
            Delivery::BackingOff { .. } => BACKOFF,
            Delivery::InFlight { pick_up, .. } => match pick_up {
                PickUp::Queued { .. } => QUEUED,
                PickUp::Unseen | PickUp::Seen { .. } => REPLY,
            },
        }
    }

    fn rank(&self) -> Option<usize> {
        RANKS.iter().position(|kind| *kind == self.kind())
    }

    /// Returns since when the saga waits for this command's reply, whichever attempt is current, or for a person.
    fn since(&self) -> Timestamp {
        let name = &self.step.name;
        match self.delivery {
            Delivery::UsedUp { .. } => since(
                self.saga,
                |kind| matches!(kind, LifecycleKind::Parked { step, .. } if step == name),
            ),
            Delivery::BackingOff { .. } | Delivery::InFlight { .. } => {
                self.instance.waiting_since.unwrap_or(self.saga.changed_at)
            }
        }
    }

    fn next_at(&self) -> Option<Timestamp> {
        match self.delivery {
            Delivery::UsedUp { .. } => None,
            Delivery::BackingOff { until, .. } => Some(*until),
            Delivery::InFlight {
                due_at, pick_up, ..
            } => match pick_up {
                // Only the deadline ends this wait without an input.
                PickUp::Queued { .. } => (!self.saga.overdue).then_some(self.saga.deadline_at),
                PickUp::Unseen | PickUp::Seen { .. } => Some(*due_at),
            },
        }
    }

    fn text(&self) -> String {
        match self.delivery {
            Delivery::UsedUp { fault, .. } => {
                let what = match self.direction {
                    Direction::Forward => "the action",
                    Direction::Resolve => "the outcome",
                    Direction::Compensation => "the compensation",
                };
                let (name, message) = (&self.step.name, &fault.message);
                format!("needs a person: {what} of '{name}': {message}")
            }
            Delivery::BackingOff { until, fault, .. } => self.backing_off(*until, &fault.message),
            Delivery::InFlight {
                sent_at,
                due_at,
                pick_up,
                ..
            } => self.in_flight(*sent_at, *due_at, *pick_up),
        }
    }

    fn command(&self) -> String {
        command_type(self.spec, self.direction)
    }

    fn backing_off(&self, until: Timestamp, fault: &str) -> String {
        let attempt = self.attempt();
        format!(
            "retrying {} at {} (attempt {}), because attempt {attempt} went wrong: {fault}",
            self.command(),
            time(until),
            attempt + 1,
        )
    }

    fn in_flight(&self, sent_at: Timestamp, due_at: Timestamp, pick_up: PickUp) -> String {
        let attempt = self.attempt();
        match pick_up {
            PickUp::Queued { since } => format!(
                "not picked up by {}, since {}: {} attempt {attempt}",
                self.step.participant,
                time(since),
                self.command()
            ),
            PickUp::Unseen => format!(
                "{} (attempt {attempt}), sent at {}, checked at {}",
                self.question(),
                time(sent_at),
                time(due_at)
            ),
            PickUp::Seen { at } => format!(
                "{} (attempt {attempt}), picked up at {}, times out at {}",
                self.question(),
                time(at),
                time(due_at)
            ),
        }
    }

    fn question(&self) -> String {
        let participant = &self.step.participant;
        match self.direction {
            Direction::Forward | Direction::Compensation => {
                format!("waiting for {participant} to answer {}", self.command())
            }
            Direction::Resolve => {
                let action = &self.spec.command_type;
                let asking = format!("asking {participant} whether {action} was done");
                match (&self.instance.settling, &self.saga.resolve_cause) {
                    (
                        Some(Settling {
                            asked: Some(PendingAction { actor, action, .. }),
                            ..
                        }),
                        _,
                    ) => format!("{asking}, because {actor} wants to {action} it"),
                    (_, Some(cause)) => format!("{asking}, because of {}", cause.code),
                    (_, None) => asking,
                }
            }
        }
    }
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
