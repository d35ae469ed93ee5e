//! What `saga.events` tells of each saga, as anybody could read it.

use super::script::{End, Wish};
use futures_util::StreamExt;
use saga_core::{
    ids::SagaId,
    instance::LifecycleKind,
    message::{Direction, LifecycleMessage},
};
use saga_messaging::kafka::Tail;
use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// The events of one saga so far, each once and without a gap.
#[derive(Clone, Debug, Default)]
pub struct Story {
    events: Vec<LifecycleKind>,
    /// An event that came before the one that it follows, or contradicts one that came before.
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
        // The same once more is what a redelivered input looks like.
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

    /// How often a person was called.
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

    /// A person has completed or skipped the step.
    pub fn was_settled(&self, step: &str) -> bool {
        self.has(|event| {
            matches!(
                event,
                LifecycleKind::StepCompleted { step: of } | LifecycleKind::StepSkipped { step: of }
                    if of == step
            )
        })
    }

    /// It tells that this was asked for, and what became of it.
    pub fn has_decided(&self, wish: &Wish) -> bool {
        self.has(|event| {
            matches!(
                event,
                LifecycleKind::ActionDecided { action, step, verdict, .. }
                    if *action == wish.kind.name()
                        && step.as_deref() == wish.kind.step()
                        && *verdict == wish.verdict
            )
        })
    }

    fn has(&self, is: impl Fn(&LifecycleKind) -> bool) -> bool {
        self.count(is) > 0
    }

    fn count(&self, is: impl Fn(&LifecycleKind) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }

    /// For a failure's message.
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
    /// Before the saga starts, so that nothing of it is missed.
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

    /// Until it is aborted.
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
