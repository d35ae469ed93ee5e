//! Checks of how often participants are asked for an outcome, and after which pauses.

use super::history::History;
use crate::world::number_of;
use saga_core::{
    definition::{SagaDefinition, Step},
    instance::{LifecycleEvent, LifecycleKind, SagaInstance},
    message::{CommandRef, Direction},
};
use std::collections::BTreeSet;

/// P2: a step's outcome is not asked for without end. The limit is the step's `resolve_attempts`, and after the saga's
/// deadline at most the attempts of the step's retry policy. After an operator's action, the count starts again.
pub fn asking_ends(history: &History) -> Option<String> {
    sagas(history).find_map(|(definition, saga)| {
        definition.steps.iter().find_map(|step| {
            let asked = asked_in_a_row(step, saga)?;
            Some(format!(
                "saga {} asked {asked} times what became of {}",
                number_of(saga.id),
                step.name
            ))
        })
    })
}

/// Returns the number of attempts to ask for the outcome, if it exceeds the limit.
fn asked_in_a_row(step: &Step, saga: &SagaInstance) -> Option<usize> {
    let policy = step.action.as_ref()?.retry.attempts as usize;
    let set = step.resolve_attempts.map(|attempts| attempts as usize);
    let mut asked = BTreeSet::new();
    let mut limit = set;
    events(saga).find_map(|LifecycleEvent { kind, .. }| {
        if let LifecycleKind::CommandSent { part, .. } = kind
            && part.step == step.name
            && part.direction == Direction::Resolve
        {
            asked.insert(part.attempt);
        } else if begins_anew(kind) {
            asked.clear();
        }
        if is_deadline(kind) {
            limit = Some(set.map_or(policy, |set| set.min(policy)));
        }
        let is_too_often = limit.is_some_and(|limit| asked.len() > limit);
        is_too_often.then_some(asked.len())
    })
}

fn begins_anew(kind: &LifecycleKind) -> bool {
    matches!(
        kind,
        LifecycleKind::ActionDecided { .. }
            | LifecycleKind::ResolveStarted { .. }
            | LifecycleKind::DeadlinePassed
    )
}

fn is_deadline(kind: &LifecycleKind) -> bool {
    if let LifecycleKind::ResolveStarted { cause, .. } = kind {
        cause.code == "deadline"
    } else {
        *kind == LifecycleKind::DeadlinePassed
    }
}

/// A command whose reply timed out is not sent again at once.
pub fn pauses_after_timeouts(history: &History) -> Option<String> {
    sagas(history).find_map(|(_, saga)| {
        let mut entries = saga.log.iter();
        let part = entries.find_map(|entry| {
            let timed_out = entry.events.iter().filter_map(timed_out);
            let mut hasty =
                timed_out.filter(|part| entry.events.iter().any(|event| is_next(event, part)));
            hasty.next()
        })?;
        Some(format!(
            "saga {}: attempt {} of {} {} timed out, and the next was sent at once",
            number_of(saga.id),
            part.attempt,
            part.step,
            part.direction
        ))
    })
}

fn timed_out(event: &LifecycleEvent) -> Option<&CommandRef> {
    if let LifecycleKind::StepTimedOut { part, .. } = &event.kind {
        Some(part)
    } else {
        None
    }
}

fn is_next(event: &LifecycleEvent, before: &CommandRef) -> bool {
    matches!(&event.kind, LifecycleKind::CommandSent { part, .. }
        if part.step == before.step && part.direction == before.direction && part.attempt == before.attempt + 1)
}

fn sagas(history: &History) -> impl Iterator<Item = (&SagaDefinition, &SagaInstance)> {
    let all = history.ended.values().chain(history.live.values());
    all.filter_map(|saga| Some((&*history.accepted.get(&saga.id)?.definition, saga)))
}

fn events(saga: &SagaInstance) -> impl Iterator<Item = &LifecycleEvent> {
    saga.log.iter().flat_map(|entry| &entry.events)
}
