//! How far the groups are, as an orchestrator asks.

use crate::simulation::{faults::Site, process::Process};
use async_trait::async_trait;
use orchestrator::engine::timers::offsets::{OffsetSource, PartitionSeen};
use std::collections::BTreeMap;

pub struct SimOffsets {
    process: Process,
}

impl SimOffsets {
    pub fn new(process: &Process) -> Self {
        Self {
            process: process.clone(),
        }
    }
}

#[async_trait]
impl OffsetSource for SimOffsets {
    async fn read(&self, topic: &str, group: &str) -> Option<BTreeMap<i32, PartitionSeen>> {
        let process = &self.process;
        process.latency().await;
        let broker = &process.world.broker;
        if broker.is_away() || process.strikes(Site::OffsetsUnreadable) {
            return None;
        }
        let committed = broker.committed(group);
        // As the real one: committed first, ends after it.
        process.latency().await;
        let mut seen = BTreeMap::new();
        for partition in 0..broker.partition_count(topic) {
            seen.insert(
                partition,
                PartitionSeen {
                    start: 0,
                    end: broker.end(topic, partition),
                    committed: committed.get(&partition).copied().unwrap_or_default(),
                },
            );
        }
        Some(seen)
    }
}
