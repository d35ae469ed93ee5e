//! How the kit reaches a participant. [`super::KafkaWire`] is the implementation for Kafka; a participant in memory, in
//! the kit's own tests, is the other.

use anyhow::Result;
use async_trait::async_trait;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::log::Delivered;
use std::time::Duration;

#[async_trait]
pub trait Wire: Send {
    /// Returns the topic to which replies shall be sent.
    fn reply_topic(&self) -> &str;

    fn reply_partitions(&self) -> i32;

    /// Appends records to the participant's topic, as one batch.
    async fn send(&mut self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>>;

    /// Returns the next reply with the key `key`, or `None` if none comes within `limit`.
    async fn reply(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>>;

    /// Returns the next dead letter with the key `key`, or `None` if none comes within `limit`.
    async fn dead_letter(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>>;

    /// Returns the offset of the next record that the participant's group will consume; 0 if the group has committed
    /// none.
    async fn committed(&mut self, group: &str, partition: i32) -> Result<i64>;
}
