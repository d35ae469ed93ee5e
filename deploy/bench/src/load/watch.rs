//! Watches for the ends of sagas: one consumer of `saga.events`, in no group.

use super::{
    in_flight::{Ended, InFlight},
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
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use uuid::Uuid;

/// How soon a stop is noticed while no record arrives.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// The most ends that are recorded together.
const TOGETHER_MAX: usize = 500;

/// The consumer of `saga.events` on its own thread. The thread stops when this is dropped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    completed: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts to read from the topic's end. Blocks for a moment.
    pub fn start(brokers: &str, flight: Arc<InFlight>) -> Result<Self> {
        let consumer = following(brokers)?;
        let stop = Arc::new(AtomicBool::new(false));
        let completed = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&completed));
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watch(&consumer, &flight, &stopped, &counted))
            .context("a thread for the watch")?;
        Ok(Self {
            stop,
            completed,
            thread: Some(thread),
        })
    }

    /// Returns how many sagas were seen to complete so far.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread's panic has already been printed.
            drop(thread.join());
        }
    }
}

/// Returns a consumer of all partitions, from their ends on.
fn following(brokers: &str) -> Result<BaseConsumer> {
    let consumer = kafka::consumer(brokers)?;
    let mut ends = TopicPartitionList::new();
    for (partition, (_, end)) in kafka::windows(&consumer, SAGA_EVENTS)? {
        ends.add_partition_offset(SAGA_EVENTS, partition, Offset::Offset(end))?;
    }
    consumer.assign(&ends).context("following saga.events")?;
    Ok(consumer)
}

/// Records the ends that arrived together in one call: one lock, one wake-up.
fn watch(consumer: &BaseConsumer, flight: &InFlight, stop: &AtomicBool, completed: &AtomicU64) {
    let mut ended: Vec<Ended> = Vec::with_capacity(TOGETHER_MAX);
    while !stop.load(Ordering::Relaxed) {
        let mut next = consumer.poll(IDLE_POLL);
        while let Some(message) = next {
            // Errors are ignored: either the broker becomes available again, or the stage finds sagas missing.
            if let Ok(message) = message {
                ended.extend(seen(&message, flight));
            }
            if ended.len() >= TOGETHER_MAX {
                break;
            }
            next = consumer.poll(Duration::ZERO);
        }
        flight.ended(&ended);
        let complete = ended.iter().filter(|one| one.outcome == Outcome::Completed);
        completed.fetch_add(complete.count() as u64, Ordering::Relaxed);
        ended.clear();
    }
}

fn seen(message: &BorrowedMessage<'_>, flight: &InFlight) -> Option<Ended> {
    let headers = message.headers()?;
    let kind = headers
        .iter()
        .find(|header| header.key == "ce_type")
        .and_then(|header| std::str::from_utf8(header.value?).ok())?;
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
