//! The offsets of simulated groups, as an orchestrator reads them.

use crate::{faults::Site, process::Process};
use async_trait::async_trait;
use orchestrator::engine::timers::offsets::{OffsetSource, PartitionOffsets};
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
    async fn read(&self, topic: &str, group: &str) -> Option<BTreeMap<i32, PartitionOffsets>> {
        let process = &self.process;
        process.latency().await;
        let broker = &process.world.broker;
        if broker.is_unavailable() || process.strikes(Site::OffsetsUnreadable) {
            return None;
        }
        let committed = broker.committed(group);
        // This is as in the real implementation: committed offsets are read before end offsets.
        process.latency().await;
        let mut seen = BTreeMap::new();
        for partition in 0..broker.partition_count(topic) {
            seen.insert(
                partition,
                PartitionOffsets {
                    start: 0,
                    end: broker.end(topic, partition),
                    committed: committed.get(&partition).copied().unwrap_or_default(),
                },
            );
        }
        Some(seen)
    }
}
