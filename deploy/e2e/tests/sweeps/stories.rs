//! The stories of the sagas: their events in `saga.events`, read as any consumer could.

use super::script::{End, RequestedAction};
use futures_util::StreamExt;
use saga_core::{
    ids::SagaId,
    instance::{LifecycleKind, LifecycleMessage},
    message::Direction,
};
use saga_messaging::kafka::Tail;
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// The events of one saga so far, without duplicates and without gaps.
#[derive(Clone, Debug, Default)]
pub struct Story {
    events: Vec<LifecycleKind>,
    /// The first event that came before its predecessor, or that contradicts an event with the same number.
    pub fault: Option<String>,
}

impl Story {
    fn hear(&mut self, sequence: u64, kind: LifecycleKind) {
        let next = self.events.len() as u64 + 1;
        if sequence == next {
            self.events.push(kind);
            return;
        }
        let known = (sequence as usize)
            .checked_sub(1)
            .and_then(|index| self.events.get(index));
        // An equal event with the same number is the effect of a redelivered input.
        if known != Some(&kind) {
            let fault = format!("event {sequence} is {kind:?}, and {next} was to come");
            self.fault.get_or_insert(fault);
        }
    }

    pub fn end(&self) -> Option<End> {
        if self.has(|event| matches!(event, LifecycleKind::Completed)) {
            Some(End::Completed)
        } else if self.has(|event| matches!(event, LifecycleKind::Compensated { .. })) {
            Some(End::Compensated)
        } else if self.has(|event| matches!(event, LifecycleKind::Abandoned { .. })) {
            Some(End::Abandoned)
        } else {
            None
        }
    }

    /// Returns how often the saga was parked.
    pub fn parks(&self) -> usize {
        self.count(|event| matches!(event, LifecycleKind::Parked { .. }))
    }

    pub fn is_parked(&self) -> bool {
        let last = |is: fn(&LifecycleKind) -> bool| self.events.iter().rposition(is);
        last(|event| matches!(event, LifecycleKind::Parked { .. }))
            > last(|event| matches!(event, LifecycleKind::Unparked { .. }))
    }

    pub fn has_sent(&self, step: &str, direction: Direction) -> bool {
        self.has(|event| {
            matches!(event, LifecycleKind::CommandSent { part, .. }
                if part.step == step && part.direction == direction)
        })
    }

    pub fn has_done(&self, step: &str) -> bool {
        self.has(
            |event| matches!(event, LifecycleKind::StepSucceeded { part } if part.step == step),
        )
    }

    pub fn has_undone(&self, step: &str) -> bool {
        self.has(|event| matches!(event, LifecycleKind::StepCompensated { step: of } if of == step))
    }

    /// Returns true if a person has completed or skipped the step.
    pub fn was_settled(&self, step: &str) -> bool {
        self.has(|event| {
            matches!(
                event,
                LifecycleKind::StepCompleted { step: of } | LifecycleKind::StepSkipped { step: of }
                    if of == step
            )
        })
    }

    /// Returns true if the events contain this action with this verdict.
    pub fn has_decided(&self, requested: &RequestedAction) -> bool {
        self.has(|event| {
            matches!(
                event,
                LifecycleKind::ActionDecided { action, step, verdict, .. }
                    if *action == requested.kind.name()
                        && step.as_deref() == requested.kind.step()
                        && *verdict == requested.verdict
            )
        })
    }

    fn has(&self, is: impl Fn(&LifecycleKind) -> bool) -> bool {
        self.count(is) > 0
    }

    fn count(&self, is: impl Fn(&LifecycleKind) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }

    /// Returns the events as text, for an error message.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            // Writing to a string cannot fail.
            writeln!(text, "    {event:?}").unwrap_or_default();
        }
        text
    }
}

/// The stories of all sagas of the sweep.
#[derive(Debug, Default)]
pub struct Stories {
    sagas: Mutex<HashMap<SagaId, watch::Sender<Story>>>,
}

impl Stories {
    /// Registers a saga. Must be called before the saga starts, so that no event is missed.
    pub fn expect(&self, saga: SagaId) {
        self.sagas
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(saga)
            .or_default();
    }

    pub fn follow(&self, saga: SagaId) -> watch::Receiver<Story> {
        self.sagas
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(saga)
            .or_default()
            .subscribe()
    }

    /// Reads the events into the stories, until the task is aborted.
    pub async fn read(self: Arc<Self>, mut events: Tail) {
        while let Some(record) = events.next().await {
            let Ok(message) = record.json::<LifecycleMessage>() else {
                continue;
            };
            let sagas = self.sagas.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(story) = sagas.get(&message.saga_id) {
                let event = message.event.into_owned();
                story.send_modify(|story| story.hear(event.sequence, event.kind));
            }
        }
    }
}
