//! Topics whose records are sent one by one.
//!
//! A topic's `max.message.bytes` limits the size of a producer's batch, which depends on the records that happen to be
//! sent together. The broker refuses a larger batch as a whole, although each of its records may fit. The producer does
//! not know any topic's limit, and has one batch size for all topics.

use super::{context::Context, producer::WatchedProducer};
use rdkafka::{ClientConfig, error::KafkaError};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::warn;

/// The topics whose records are sent one by one, and their producer. Clones share everything.
#[derive(Clone)]
pub(super) struct Alone(Arc<Shared>);

struct Shared {
    /// The main producer's configuration, with batches of one record.
    config: ClientConfig,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    topics: BTreeSet<String>,
    /// The producer, which is created for the first such topic.
    producer: Option<Arc<WatchedProducer>>,
}

impl Alone {
    /// Returns an empty set of topics; `config` is the main producer's.
    pub(super) fn new(mut config: ClientConfig) -> Self {
        config.set("batch.num.messages", "1");
        Self(Arc::new(Shared {
            config,
            known: Mutex::default(),
        }))
    }

    pub(super) fn topics(&self) -> BTreeSet<String> {
        self.known().topics.clone()
    }

    /// Sends records of `topic` one by one from now on.
    pub(super) fn learn(&self, topic: &str) {
        if self.known().topics.insert(topic.to_owned()) {
            warn!(
                messaging.destination.name = topic,
                "the broker refuses a batch of records as too large for its topic: they are sent one by one from now on, \
                 which is slower; raise max.message.bytes of the topic, or set kafka.extra.\"batch.size\" below it"
            );
        }
    }

    /// Returns the producer for records of `topic` if they are sent one by one.
    pub(super) fn producer(&self, topic: &str) -> Option<Result<Arc<WatchedProducer>, KafkaError>> {
        let mut known = self.known();
        if !known.topics.contains(topic) {
            return None;
        }
        if let Some(producer) = &known.producer {
            return Some(Ok(Arc::clone(producer)));
        }
        let started = WatchedProducer::start(&self.0.config, Context::default()).map(Arc::new);
        if let Ok(producer) = &started {
            known.producer = Some(Arc::clone(producer));
        }
        Some(started)
    }

    /// Returns the producer, if there has been such a topic.
    pub(super) fn started(&self) -> Option<Arc<WatchedProducer>> {
        self.known().producer.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
