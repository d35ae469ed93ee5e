//! Measures how many of its input records the orchestrator has read, and how many it has not.

use super::Backpressure;
use crate::{
    kafka::{GroupOffsets, KafkaConfig},
    log::LogError,
};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Time between two measurements; a flood is noticed within it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two measurements while the lag is large.
const LOOK_OFTEN: Duration = Duration::from_millis(250);
/// Longest time for a measurement: an unavailable broker may not answer at all.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Measures the lag of a consumer group in a topic.
pub struct InputLag {
    offsets: GroupOffsets,
    topic: String,
}

impl InputLag {
    /// Connects to Kafka. `group` is the orchestrator's group, `topic` its input topic.
    pub fn connect(config: &KafkaConfig, group: &str, topic: &str) -> Result<Self, LogError> {
        Ok(Self {
            offsets: GroupOffsets::connect(config, group)?,
            topic: topic.to_owned(),
        })
    }

    /// Reports the current lag to `pressure`. Returns `false` if it could not be measured.
    pub async fn look(&self, pressure: &Backpressure) -> bool {
        match timeout(LOOK_LIMIT, self.inputs()).await {
            Ok(Ok((read, waiting))) => {
                pressure.look(Instant::now(), read, waiting);
                return true;
            }
            Err(_) => pressure.unseen(Instant::now()),
            Ok(Err(error)) => {
                pressure.unseen(Instant::now());
                debug!(
                    error = &error as &dyn std::error::Error,
                    messaging.kafka.topic = self.topic,
                    "the orchestrator's input lag cannot be measured"
                );
            }
        }
        false
    }

    /// Measures until `stop`.
    pub async fn run(self, pressure: Backpressure, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.look(&pressure) => {}
            }
            let pause = if pressure.is_busy() {
                LOOK_OFTEN
            } else {
                LOOK_EVERY
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns the number of records that the orchestrator has read, and of those that it has not.
    async fn inputs(&self) -> Result<(u64, u64), LogError> {
        let (mut read, mut waiting) = (0, 0);
        for (partition, committed) in self.offsets.committed(&self.topic).await? {
            let (start, end) = self.offsets.watermarks(&self.topic, partition).await?;
            let next = committed.max(start);
            read += next.max(0).unsigned_abs();
            waiting += (end - next).max(0).unsigned_abs();
        }
        Ok((read, waiting))
    }
}
