//! Sees sagas end: one consumer, in no group, on `saga.events`.

use super::{
    flight::{Ended, Flight},
    tally::Outcome,
};
use crate::kafka;
use anyhow::{Context, Result};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};
use saga_contracts::topic::SAGA_EVENTS;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use uuid::Uuid;

/// How soon a stop is noticed while nothing happens.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Ends that are told together, at most.
const TOGETHER_MAX: usize = 500;
/// How often each type of event was seen, by `ce_type`.
pub type Events = BTreeMap<String, u64>;

/// See the module; stops when it is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    events: Arc<Mutex<Events>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// From the topic's end on. Blocks for a moment.
    pub fn start(brokers: &str, flight: Arc<Flight>) -> Result<Self> {
        let consumer = following(brokers)?;
        let stop = Arc::new(AtomicBool::new(false));
        let events = Arc::new(Mutex::new(Events::new()));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&events));
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(&consumer, &flight, &stopped, &counted))
            .context("a thread for the watch")?;
        Ok(Self {
            stop,
            events,
            thread: Some(thread),
        })
    }

    /// Seen so far.
    pub fn events(&self) -> Events {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            drop(thread.join());
        }
    }
}

/// All partitions, from their ends on.
fn following(brokers: &str) -> Result<BaseConsumer> {
    let consumer = kafka::consumer(brokers)?;
    let mut ends = TopicPartitionList::new();
    for (partition, (_, end)) in kafka::windows(&consumer, SAGA_EVENTS)? {
        ends.add_partition_offset(SAGA_EVENTS, partition, Offset::Offset(end))?;
    }
    consumer.assign(&ends).context("following saga.events")?;
    Ok(consumer)
}

/// What arrived together is told together: one lock, one wake-up.
fn watch(consumer: &BaseConsumer, flight: &Flight, stop: &AtomicBool, counted: &Mutex<Events>) {
    let mut ended = Vec::with_capacity(TOGETHER_MAX);
    let mut events = Events::new();
    while !stop.load(Ordering::Relaxed) {
        let mut next = consumer.poll(IDLE_POLL);
        while let Some(message) = next {
            // A broker that is away comes back, or the stage finds sagas missing.
            if let Ok(message) = message {
                ended.extend(seen(&message, flight, &mut events));
            }
            if ended.len() >= TOGETHER_MAX {
                break;
            }
            next = consumer.poll(Duration::ZERO);
        }
        flight.ended(&ended);
        ended.clear();
        let mut all = counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in &mut events {
            match all.get_mut(kind) {
                Some(sum) => *sum += *count,
                None => drop(all.insert(kind.clone(), *count)),
            }
            *count = 0;
        }
    }
}

fn seen(message: &BorrowedMessage<'_>, flight: &Flight, events: &mut Events) -> Option<Ended> {
    let headers = message.headers()?;
    let kind = headers
        .iter()
        .find(|header| header.key == "ce_type")
        .and_then(|header| std::str::from_utf8(header.value?).ok())?;
    match events.get_mut(kind) {
        Some(count) => *count += 1,
        None => drop(events.insert(kind.to_owned(), 1)),
    }
    let outcome = outcome(kind)?;
    let saga = Uuid::try_parse_ascii(message.key()?).ok()?;
    Some(Ended {
        saga,
        outcome,
        at_us: flight.now_us(),
    })
}

fn outcome(kind: &str) -> Option<Outcome> {
    match kind {
        "saga.completed" => Some(Outcome::Completed),
        "saga.compensated" => Some(Outcome::Compensated),
        "saga.parked" => Some(Outcome::Parked),
        "saga.abandoned" => Some(Outcome::Abandoned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::instance::LifecycleKind;

    #[test]
    fn the_names_of_terminal_events_are_those_of_the_product() {
        let completed = format!("saga.{}", LifecycleKind::Completed.name());
        assert_eq!(outcome(&completed), Some(Outcome::Completed));
        let reason = String::new();
        let abandoned = format!("saga.{}", LifecycleKind::Abandoned { reason }.name());
        assert_eq!(outcome(&abandoned), Some(Outcome::Abandoned));
        assert_eq!(outcome("saga.step_succeeded"), None);
    }
}
