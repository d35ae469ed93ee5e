//! A producer, and the thread that looks at its events.

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

/// One look. It returns early for nothing, and spins in its last millisecond: at the client library's own tenth of a
/// second, that is most of what an idle producer costs.
const LOOK: Duration = Duration::from_secs(1);

/// Deliveries and errors are told as they come, without anybody asking.
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
    /// The thread ends by itself, after what is under way; whoever drops a writer is not to wait for a broker.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
