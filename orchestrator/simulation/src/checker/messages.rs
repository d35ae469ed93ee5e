//! Checks of the records in the log.

use super::history::{Appended, History, Kind};
use crate::world::number_of;
use saga_core::{ids::SagaId, instance::LifecycleKind, message::CommandRef};
use std::collections::{BTreeMap, BTreeSet};

/// Types of the events that end a saga.
const TERMINAL: [&str; 3] = ["saga.completed", "saga.compensated", "saga.abandoned"];
/// Commands in excess of one copy for each reason: a takeover sends the commands in flight, and a batch may be torn
/// more than once.
const SLACK: usize = 4;

/// Every saga's events are numbered without a gap, the same number is the same event, and one of them is the last.
pub fn events_are_gapless(history: &History) -> Option<String> {
    let mut told: BTreeMap<SagaId, BTreeMap<u64, &Appended>> = BTreeMap::new();
    for event in history.of_kind(Kind::Event) {
        let (Some(saga), Some(sequence)) = (event.saga, event.sequence) else {
            return Some(format!("an event without a saga or number: {event}"));
        };
        let first = told
            .entry(saga)
            .or_default()
            .entry(sequence)
            .or_insert(event);
        if first.payload != event.payload || first.id != event.id {
            return Some(format!(
                "saga {} has two events {sequence}: {first} and {event}",
                number_of(saga)
            ));
        }
    }
    for (saga, instance) in &history.ended {
        let numbers: Vec<u64> = told
            .get(saga)
            .map(|events| events.keys().copied().collect())
            .unwrap_or_default();
        if numbers != (1..=instance.sequence).collect::<Vec<_>>() {
            return Some(format!(
                "saga {} has {} events, told were {numbers:?}",
                number_of(*saga),
                instance.sequence
            ));
        }
        let ends = told[saga]
            .values()
            .filter(|event| TERMINAL.contains(&event.record_type.as_str()))
            .count();
        if ends != 1 {
            return Some(format!("saga {} ended {ends} times", number_of(*saga)));
        }
    }
    None
}

/// An attempt that ended in an `error` was itself answered with it: the `error` of an older attempt must not end it.
pub fn errors_end_their_own_attempt(history: &History) -> Option<String> {
    let told: BTreeSet<&str> = history
        .of_kind(Kind::Input)
        .map(|input| input.id.as_str())
        .collect();
    let sagas = history.ended.values().chain(history.live.values());
    sagas
        .flat_map(|instance| instance.log.iter().map(move |entry| (instance.id, entry)))
        .flat_map(|(saga, entry)| entry.events.iter().map(move |event| (saga, event)))
        .find_map(|(saga, event)| {
            let LifecycleKind::StepErrored { part, .. } = &event.kind else {
                return None;
            };
            let CommandRef {
                step,
                direction,
                attempt,
            } = part;
            let id = format!("{saga}/{step}/{direction}/error/{attempt}");
            (!told.contains(id.as_str())).then(|| {
                format!(
                    "saga {}: attempt {attempt} of {step} {direction} ended in an error that nobody answered",
                    number_of(saga)
                )
            })
        })
}

/// A command that is not in the log yet is neither picked up nor late, and no timer may report it as such.
pub fn only_sent_commands_are_timed(history: &History) -> Option<String> {
    let mut sent: BTreeSet<&str> = BTreeSet::new();
    let mut sent_before: BTreeMap<(i32, i64), BTreeSet<&str>> = BTreeMap::new();
    let timed = timed_attempts(history);
    for record in &history.appended {
        match record.kind {
            Kind::Command => {
                sent.insert(&record.id);
            }
            Kind::Input => {
                let place = (record.partition, record.offset);
                if timed.iter().any(|(at, ..)| *at == place) {
                    sent_before.insert(place, sent.clone());
                }
            }
            Kind::Event | Kind::DeadLetter => {}
        }
    }
    timed.into_iter().find_map(|(place, saga, part)| {
        let CommandRef {
            step,
            direction,
            attempt,
        } = part;
        let id = format!("{saga}/{step}/{direction}/{attempt}");
        let was_sent = sent_before
            .get(&place)
            .is_some_and(|sent| sent.contains(id.as_str()));
        (!was_sent).then(|| {
            format!(
                "saga {}: attempt {attempt} of {step} {direction} had a timer before it was sent",
                number_of(saga)
            )
        })
    })
}

/// Returns the attempts that a timer reported as picked up or ended, with the position of the timer's record.
fn timed_attempts(history: &History) -> Vec<((i32, i64), SagaId, &CommandRef)> {
    let sagas = history.ended.values().chain(history.live.values());
    let mut found = Vec::new();
    for instance in sagas {
        for entry in &instance.log {
            for event in &entry.events {
                if let LifecycleKind::StepTimedOut { part, .. }
                | LifecycleKind::CommandPickedUp { part } = &event.kind
                {
                    let place = (entry.position.partition, entry.position.offset);
                    found.push((place, instance.id, part));
                }
            }
        }
    }
    found
}

/// Inputs of a saga are in its home partition, regardless of a client's partitioner. The home partition is chosen by
/// the saga's starter, or is that of a stray copy of its start which was read first.
pub fn inputs_come_home(history: &History) -> Option<String> {
    let is_home = |saga: SagaId, partition: i32| {
        let accepted = history.accepted.get(&saga).map(|one| one.home_partition);
        let found = history.ended.get(&saga).or_else(|| history.live.get(&saga));
        let real = found.map(|instance| instance.home_partition);
        accepted.is_none() || accepted == Some(partition) || real == Some(partition)
    };
    let stray = history.of_kind(Kind::Input).find(|input| {
        let at_home = input.saga.is_none_or(|saga| is_home(saga, input.partition));
        !input.injected && !at_home
    })?;
    Some(format!("{stray} is not in the saga's home partition"))
}

/// A command is sent again only for a reason, and for each reason once per command in flight.
pub fn bounded_amplification(history: &History) -> Option<String> {
    let mut sent: BTreeMap<SagaId, usize> = BTreeMap::new();
    let mut ids: BTreeMap<SagaId, BTreeSet<&str>> = BTreeMap::new();
    for command in history.of_kind(Kind::Command).filter(|one| !one.injected) {
        if let Some(saga) = command.saga {
            *sent.entry(saga).or_default() += 1;
            ids.entry(saga).or_default().insert(&command.id);
        }
    }
    sent.into_iter().find_map(|(saga, count)| {
        let accepted = history.accepted.get(&saga)?;
        let again = count - ids.get(&saga).map_or(0, BTreeSet::len);
        let reasons = history.again.get(&saga).copied().unwrap_or_default();
        let width = accepted.definition.steps.len();
        (again > (reasons + SLACK) * width).then(|| {
            format!(
                "saga {}: {again} commands were sent again for {reasons} reasons",
                number_of(saga)
            )
        })
    })
}
