//! Checks of the promises P1 to P7.

use super::history::{Accepted, History, Kind};
use crate::{nemesis::by_hand, store::Effect, world::number_of};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    ids::SagaId,
    instance::{ActionVerdict, LifecycleKind, SagaInstance, SagaStatus, StepState},
    message::Direction,
};
use std::collections::BTreeSet;

/// P1: every accepted order has a live or an ended saga.
pub fn accepted_is_never_lost(history: &History) -> Option<String> {
    let lost = history
        .accepted
        .iter()
        .find(|(saga, _)| !history.live.contains_key(saga) && !history.ended.contains_key(saga));
    lost.map(|(saga, accepted)| format!("order {} ({saga}) has no saga", accepted.number))
}

/// P2: every saga ends, after a long time without failures in which operators retried parked sagas.
pub fn every_saga_ends(history: &History) -> Option<String> {
    let (saga, instance) = history.live.iter().next()?;
    Some(format!(
        "saga {} is {}: {:?}",
        number_of(*saga),
        instance.status.as_str(),
        instance.steps
    ))
}

/// Returns how often a step was done and compensated.
fn counts(history: &History, saga: SagaId, step: &str) -> (usize, usize) {
    let of = |direction| {
        history
            .effects
            .iter()
            .filter(|effect| {
                effect.saga == saga && effect.step == step && effect.direction == direction
            })
            .count()
    };
    (of(Direction::Forward), of(Direction::Compensation))
}

/// P3: either all forward effects happened once, or each one that happened was compensated once.
pub fn effects_exactly_once(history: &History) -> Option<String> {
    history
        .accepted
        .iter()
        .find_map(|(saga, accepted)| effects_of(history, *saga, accepted))
}

fn effects_of(history: &History, saga: SagaId, accepted: &Accepted) -> Option<String> {
    let status = history.ended.get(&saga).map(|instance| &instance.status);
    let steps = accepted.definition.steps.iter();
    for step in steps.filter(|step| !taken_on(history, saga, step)) {
        let (done, undone) = counts(history, saga, &step.name);
        // The starter's own step is done where its row is written, if it writes one.
        let right = match status {
            Some(SagaStatus::Completed) if settled_by_hand(history, saga, accepted, step) => {
                (done, undone) == (0, 0)
            }
            Some(SagaStatus::Completed) => (done, undone) == (1, 0),
            Some(SagaStatus::Compensated) => {
                let compensatable = step.kind == StepKind::Compensatable;
                done == undone && done <= usize::from(compensatable)
            }
            Some(
                SagaStatus::Running
                | SagaStatus::Compensating
                | SagaStatus::Parked { .. }
                | SagaStatus::Abandoned { .. },
            )
            | None => done <= 1 && undone <= done,
        };
        if !right {
            let status = status.map_or("live", SagaStatus::as_str);
            return Some(format!(
                "saga {} is {status}, and its step {} was done {done} times and undone {undone} times",
                number_of(saga),
                step.name
            ));
        }
        let rows = counts(history, saga, &format!("{}/row", step.name));
        let settled = history.ended.contains_key(&saga) && rows != (0, 0);
        if rows.0 > done || rows.1 > undone || (settled && rows != (done, undone)) {
            return Some(format!(
                "saga {}: outside, step {} was done {done} times and undone {undone} times; its rows say {rows:?}",
                number_of(saga),
                step.name
            ));
        }
    }
    None
}

/// Returns true if an operator completed or skipped a step: its participant has not done it and never will.
fn settled_by_hand(history: &History, saga: SagaId, accepted: &Accepted, step: &Step) -> bool {
    let found = accepted
        .definition
        .step(&step.name)
        .and_then(|(index, _)| history.ended.get(&saga)?.steps.get(index));
    found.is_some_and(|step| {
        step.state == StepState::Skipped || step.result.as_deref() == Some(&by_hand())
    })
}

/// Returns true if an operator decided about a step without its participant's answer, and was warned of the
/// consequences.
fn taken_on(history: &History, saga: SagaId, step: &Step) -> bool {
    let found = history.ended.get(&saga).or_else(|| history.live.get(&saga));
    let mut events = found
        .into_iter()
        .flat_map(|instance| instance.log.iter().flat_map(|entry| &entry.events));
    events.any(|event| {
        matches!(
            &event.kind,
            LifecycleKind::ActionDecided {
                step: Some(name),
                verdict: ActionVerdict::Accepted { warning: Some(_) },
                ..
            } if *name == step.name
        )
    })
}

/// P3: no effect appears after its compensation.
pub fn no_effect_after_compensation(history: &History) -> Option<String> {
    let mut undone = BTreeSet::new();
    for effect in &history.effects {
        let step = (effect.saga, effect.step.as_str());
        match effect.direction {
            Direction::Compensation => {
                undone.insert(step);
            }
            Direction::Forward | Direction::Resolve if undone.contains(&step) => {
                return Some(format!(
                    "saga {}: {} was done after it was undone",
                    number_of(effect.saga),
                    effect.step
                ));
            }
            Direction::Forward | Direction::Resolve => {}
        }
    }
    None
}

/// P3: a step is compensated only after every step that depends on it is compensated and cannot be done any more, or
/// after an operator decided that the dependent step stays.
pub fn compensations_run_backwards(history: &History) -> Option<String> {
    (0..history.effects.len()).find_map(|place| {
        let undone = &history.effects[place];
        let definition = &history.accepted.get(&undone.saga)?.definition;
        let (earlier, _) = definition
            .step(&undone.step)
            .filter(|_| undone.direction == Direction::Compensation)?;
        let later = definition.steps.iter().find(|step| {
            let of = |effects: &[Effect], direction| {
                let same = effects.iter().filter(|effect| {
                    effect.saga == undone.saga
                        && effect.step == step.name
                        && effect.direction == direction
                });
                same.count()
            };
            step.ancestors.contains(&earlier)
                && !stays(history, undone.saga, definition, step)
                && of(&history.effects, Direction::Forward)
                    > of(&history.effects[..place], Direction::Compensation)
        })?;
        Some(format!(
            "saga {}: {} was undone before {}",
            number_of(undone.saga),
            undone.step,
            later.name
        ))
    })
}

/// Returns true if an operator skipped the step's compensation.
fn stays(history: &History, saga: SagaId, definition: &SagaDefinition, step: &Step) -> bool {
    if taken_on(history, saga, step) {
        return true;
    }
    let last = history.ended.get(&saga).or_else(|| history.live.get(&saga));
    let found = definition
        .step(&step.name)
        .and_then(|(index, _)| last?.steps.get(index));
    found.is_some_and(|step| matches!(step.state, StepState::CompensationSkipped { .. }))
}

/// P4: nothing is compensated while the pivot is unresolved or after it succeeded.
pub fn pivot_decides(history: &History) -> Option<String> {
    let too_early = history.snapshots.iter().find_map(|snapshot| {
        let instance = &snapshot.instance;
        let accepted = history.accepted.get(&instance.id)?;
        let pivot = accepted.definition.pivot()?;
        let compensates = instance.steps.iter().any(|step| {
            matches!(
                step.state,
                StepState::Compensating(_) | StepState::Compensated
            )
        });
        let state = &instance.steps.get(pivot)?.state;
        let decided = matches!(
            state,
            StepState::Skipped | StepState::Failed { .. } | StepState::NotDone
        );
        (compensates && !decided).then(|| {
            format!(
                "saga {} compensates, and its pivot is {state:?}",
                number_of(instance.id)
            )
        })
    });
    too_early.or_else(|| {
        history.accepted.iter().find_map(|(saga, accepted)| {
            let pivot = accepted.definition.pivot()?;
            let name = &accepted.definition.steps[pivot].name;
            let (done, _) = counts(history, *saga, name);
            let undone = history.effects.iter().find(|effect| {
                effect.saga == *saga && effect.direction == Direction::Compensation
            })?;
            (done > 0 && !taken_on(history, *saga, &accepted.definition.steps[pivot])).then(|| {
                format!(
                    "saga {}: {} was undone, and the pivot {name} is done",
                    number_of(*saga),
                    undone.step
                )
            })
        })
    })
}

/// P5: a saga whose participants answer without failures does not compensate, whatever was down or busy, unless an
/// operator asked for it or its deadline passed.
pub fn nothing_needless(history: &History) -> Option<String> {
    let calm = history
        .accepted
        .iter()
        .filter(|(saga, accepted)| accepted.calm && !history.meddled.contains(saga));
    for (saga, _) in calm {
        let Some(instance) = history.ended.get(saga) else {
            continue;
        };
        if instance.overdue {
            continue;
        }
        if let Some(why) = needless(instance) {
            return Some(format!("saga {}: {why}", number_of(*saga)));
        }
    }
    None
}

fn needless(instance: &SagaInstance) -> Option<String> {
    if let Some(cause) = &instance.cause {
        return Some(format!("compensated because of {cause:?}"));
    }
    let mut kinds = instance
        .log
        .iter()
        .flat_map(|entry| entry.events.iter().map(|event| &event.kind));
    kinds
        .find(|kind| {
            matches!(
                kind,
                LifecycleKind::Parked { .. } | LifecycleKind::ResolveStarted { .. }
            )
        })
        .map(|kind| format!("{kind:?}"))
}

/// P6: a saga is advanced once from each version.
pub fn one_advance_per_version(history: &History) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = history
        .advances
        .iter()
        .find(|advance| !seen.insert(**advance));
    twice.map(|advance| {
        format!(
            "saga {} was advanced twice from version {}",
            number_of(advance.saga),
            advance.from_version
        )
    })
}

/// P7: a record that cannot be processed becomes a dead letter.
pub fn bad_records_are_kept(history: &History) -> Option<String> {
    let letters: BTreeSet<&(String, i32, i64)> = history
        .of_kind(Kind::DeadLetter)
        .filter_map(|letter| letter.letter_of.as_ref())
        .collect();
    let missing = history.bad.iter().find(|place| !letters.contains(place))?;
    let (topic, partition, offset) = missing;
    Some(format!(
        "the record {topic} {partition}/{offset} is no dead letter"
    ))
}
