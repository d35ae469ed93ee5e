//! Offsets as Kafka tells them.

use crate::engine::timers::offsets::{OffsetSource, PartitionSeen};
use async_trait::async_trait;
use saga_messaging::{
    kafka::{GroupOffsets, KafkaConfig},
    log::LogError,
};
use std::collections::{BTreeMap, HashMap};
use tracing::debug;

/// One client a group, none of them a member.
pub struct KafkaOffsets {
    groups: HashMap<String, GroupOffsets>,
}

impl KafkaOffsets {
    pub fn connect<'a>(
        config: &KafkaConfig,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LogError> {
        let mut clients = HashMap::new();
        for group in groups {
            if !clients.contains_key(group) {
                clients.insert(group.to_owned(), GroupOffsets::connect(config, group)?);
            }
        }
        Ok(Self { groups: clients })
    }

    async fn look(
        client: &GroupOffsets,
        topic: &str,
    ) -> Result<BTreeMap<i32, PartitionSeen>, LogError> {
        // Committed first: the end that is seen later can only make a command look more queued, never gone.
        let mut seen = BTreeMap::new();
        for (partition, committed) in client.committed(topic).await? {
            let (start, end) = client.watermarks(topic, partition).await?;
            seen.insert(
                partition,
                PartitionSeen {
                    start,
                    end,
                    committed,
                },
            );
        }
        Ok(seen)
    }
}

#[async_trait]
impl OffsetSource for KafkaOffsets {
    async fn read(&self, topic: &str, group: &str) -> Option<BTreeMap<i32, PartitionSeen>> {
        let client = self.groups.get(group)?;
        match Self::look(client, topic).await {
            Ok(seen) => Some(seen),
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    messaging.kafka.topic = topic,
                    group,
                    "offsets cannot be read"
                );
                None
            }
        }
    }
}
