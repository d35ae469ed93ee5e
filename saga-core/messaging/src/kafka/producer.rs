//! A producer, and the thread that polls its events.

use super::context::Context;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, KafkaResult},
    producer::{BaseProducer, Producer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Longest poll. It returns early only for events, and spins in its last millisecond: at the client library's default
/// of a tenth of a second, that spinning is most of an idle producer's cost.
const LOOK: Duration = Duration::from_secs(1);

/// A producer whose deliveries and errors are reported as they come, by a thread of its own.
pub(super) struct WatchedProducer {
    producer: Arc<BaseProducer<Context>>,
    over: Arc<AtomicBool>,
}

impl WatchedProducer {
    pub(super) fn start(config: &ClientConfig, context: Context) -> KafkaResult<Self> {
        let producer: BaseProducer<Context> = config.create_with_context(context)?;
        let producer = Arc::new(producer);
        let over = Arc::new(AtomicBool::new(false));
        thread::Builder::new()
            .name("kafka-producer".to_owned())
            .spawn({
                let (producer, over) = (Arc::clone(&producer), Arc::clone(&over));
                move || watch(&producer, &over)
            })
            .map_err(|error| KafkaError::ClientCreation(format!("no thread for it: {error}")))?;
        Ok(Self { producer, over })
    }
}

fn watch(producer: &BaseProducer<Context>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) || producer.in_flight_count() > 0 {
        producer.poll(LOOK);
    }
}

impl std::ops::Deref for WatchedProducer {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl Drop for WatchedProducer {
    /// The thread ends by itself after the records in flight, because the drop of a writer must not wait for a broker.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.producer.context().is_over();
    }
}
