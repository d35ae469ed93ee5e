//! Kafka, the log that production uses.
//!
//! ```text
//!  KafkaReader ── member of a group: polls batches, stores offsets when told `done`
//!  KafkaWriter ── idempotent, acks=all: returns when every in-sync replica has the records
//!  GroupOffsets ─ what another group has consumed, without being in it
//!  LossWatch ──── tells what a group lost because its topic's retention was too short
//!  Tail ───────── what is appended to a topic from now on, for live pages
//!  Scan ───────── what stands in a topic, a bounded look at a time, for dead letters
//!  admin ──────── creates and checks topics
//! ```
//!
//! **Offsets.** The client commits by itself, four times a second, at revocation and at close; but only offsets that
//! [`LogReader::done`](crate::log::LogReader::done) stored, which is after the transaction and the messages that follow
//! from it are durable. A commit that is late or lost costs a redelivery, never a record.
//!
//! **Partitioners.** librdkafka's own default (CRC32) and Java's (murmur2) differ, so a producer of this crate uses
//! murmur2, and what must lie in one partition, a saga's inputs, is sent to [`home_partition`] explicitly.
//!
//! Everything here must be made inside a tokio runtime.

pub mod admin;
mod config;
mod context;
mod delivery;
mod error;
mod loss;
mod offsets;
mod partition;
mod producer;
mod reader;
mod record;
mod scan;
mod tail;
mod writer;

pub use admin::{TopicProblem, TopicRequirement, TopicSpec, check_topics, ensure_topics, health};
pub use config::{KafkaConfig, KafkaConfigError, SaslMechanism, Secret, SecurityProtocol};
pub use error::{Refusal, is_away};
pub use loss::{LossWatch, Lost};
pub use offsets::GroupOffsets;
pub use partition::home_partition;
pub use reader::{KafkaReader, ReaderOptions};
pub use scan::{Looked, Scan, Window};
pub use tail::Tail;
pub use writer::{KafkaWriter, RECORD_LIMIT_BYTES};

use crate::log::LogError;
use futures_util::{FutureExt, future::BoxFuture};
use std::time::Duration;

/// How long a question about metadata, offsets or watermarks may take. Longer than a leader election of a healthy
/// cluster, shorter than anybody waits for a page.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// [`health`] as a service's health endpoint wants it.
pub fn health_check(config: KafkaConfig) -> impl Fn() -> BoxFuture<'static, Result<(), String>> {
    move || {
        let config = config.clone();
        async move { health(&config).await.map_err(|error| error.to_string()) }.boxed()
    }
}

/// Runs a blocking call of the client where it may block.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Unavailable(Box::new(error))),
    }
}
