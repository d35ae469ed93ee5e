//! Reads the offsets of topics and consumer groups from Kafka.

use crate::engine::timers::offsets::{OffsetSource, PartitionOffsets};
use async_trait::async_trait;
use saga_messaging::{
    kafka::{GroupOffsets, KafkaConfig},
    log::LogError,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};
use tracing::debug;

/// Holds one client per consumer group. The clients do not join their groups. The client of a group that is not named
/// at the start is made when a definition first needs it.
pub struct KafkaOffsets {
    config: KafkaConfig,
    groups: Mutex<HashMap<String, GroupOffsets>>,
}

impl KafkaOffsets {
    pub fn connect<'a>(
        config: &KafkaConfig,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LogError> {
        let offsets = Self {
            config: config.clone(),
            groups: Mutex::default(),
        };
        for group in groups {
            offsets.client(group)?;
        }
        Ok(offsets)
    }

    fn client(&self, group: &str) -> Result<GroupOffsets, LogError> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = groups.get(group) {
            return Ok(client.clone());
        }
        let client = GroupOffsets::connect(&self.config, group)?;
        groups.insert(group.to_owned(), client.clone());
        Ok(client)
    }

    async fn look(
        client: &GroupOffsets,
        topic: &str,
    ) -> Result<BTreeMap<i32, PartitionOffsets>, LogError> {
        // Reads committed offsets before end offsets: an end that is read later can only make a command look still
        // queued, never consumed.
        let mut seen = BTreeMap::new();
        for (partition, committed) in client.committed(topic).await? {
            let (start, end) = client.watermarks(topic, partition).await?;
            seen.insert(
                partition,
                PartitionOffsets {
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
    async fn read(&self, topic: &str, group: &str) -> Option<BTreeMap<i32, PartitionOffsets>> {
        let looked = match self.client(group) {
            Ok(client) => Self::look(&client, topic).await,
            Err(error) => Err(error),
        };
        match looked {
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
