//! Queries that the bench itself sends to Kafka.

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    metadata::MetadataTopic,
};
use saga_contracts::topic;
use std::{collections::BTreeMap, time::Duration};

pub const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// librdkafka assigns partitions only to a client that has a group id. No group is joined and no offset committed under
/// it.
const GROUP: &str = "saga-bench";

/// Returns a consumer for assigned partitions and offsets. It commits no offsets.
pub fn consumer(brokers: &str) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .create()
        .context("a consumer")
}

/// Returns the beginning and end offset of each partition; empty if there is no such topic. Blocks.
pub fn windows(client: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>> {
    let metadata = client.fetch_metadata(Some(topic), QUERY_TIMEOUT)?;
    metadata
        .topics()
        .iter()
        .flat_map(MetadataTopic::partitions)
        .map(|partition| {
            let id = partition.id();
            Ok((id, client.fetch_watermarks(topic, id, QUERY_TIMEOUT)?))
        })
        .collect()
}

/// Returns how many records have ever been written to each topic of the system. Blocks.
pub fn ends(client: &BaseConsumer) -> Result<BTreeMap<&'static str, i64>> {
    topic::ALL
        .into_iter()
        .map(|topic| {
            let windows = windows(client, topic)?;
            Ok((topic, windows.values().map(|(_, end)| end).sum()))
        })
        .collect()
}

/// Like [`ends`], without blocking the caller's thread.
pub async fn ends_of(brokers: &str) -> Result<BTreeMap<&'static str, i64>> {
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || ends(&consumer(&brokers)?)).await?
}
