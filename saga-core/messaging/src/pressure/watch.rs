//! Looks at what the orchestrator has read of its inputs, and what it has not.

use super::Pressure;
use crate::{
    kafka::{GroupOffsets, KafkaConfig},
    log::LogError,
};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// A flood is felt within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While it is felt.
const LOOK_OFTEN: Duration = Duration::from_millis(250);
/// A broker that is away takes its time to say so.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// Whose inputs are looked at.
pub struct InputsWatch {
    offsets: GroupOffsets,
    topic: String,
}

impl InputsWatch {
    /// `group` is the orchestrator's, `topic` what it reads.
    pub fn connect(config: &KafkaConfig, group: &str, topic: &str) -> Result<Self, LogError> {
        Ok(Self {
            offsets: GroupOffsets::connect(config, group)?,
            topic: topic.to_owned(),
        })
    }

    /// Tells `pressure` what there is to be seen now; `false` if that is nothing.
    pub async fn look(&self, pressure: &Pressure) -> bool {
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
                    "what waits for the orchestrator cannot be told"
                );
            }
        }
        false
    }

    /// Looks until `stop`.
    pub async fn run(self, pressure: Pressure, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.look(&pressure) => {}
            }
            let pause = if pressure.is_felt() {
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

    /// Records that the orchestrator has read, and that it has not.
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
