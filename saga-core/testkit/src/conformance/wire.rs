//! How the kit reaches a participant. Kafka is one implementation ([`super::KafkaWire`]); a participant in memory, in the
//! kit's own tests, is the other.

use anyhow::Result;
use async_trait::async_trait;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_messaging::log::Delivered;
use std::time::Duration;

#[async_trait]
pub trait Wire: Send {
    /// Where replies are asked for.
    fn reply_topic(&self) -> &str;

    fn reply_partitions(&self) -> i32;

    /// Appends records to the participant's topic, as one batch.
    async fn send(&mut self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>>;

    /// The next reply whose key is `key`; `None` if there is none within `limit`.
    async fn reply(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>>;

    /// The next dead letter whose key is `key`; `None` if there is none within `limit`.
    async fn dead_letter(&mut self, key: &str, limit: Duration) -> Result<Option<IncomingRecord>>;

    /// The offset of the next record that the participant's group will consume; 0 if it has committed none.
    async fn committed(&mut self, group: &str, partition: i32) -> Result<i64>;
}
