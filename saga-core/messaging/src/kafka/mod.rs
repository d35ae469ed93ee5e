//! Kafka, the log that production uses.
//!
//! ```text
//!  KafkaReader ── member of a group: polls batches, stores the offsets passed to `done`
//!  KafkaWriter ── idempotent, acks=all: returns when every in-sync replica has the records
//!  GroupOffsets ─ reads the offsets that another group has committed, without being in it
//!  Mark ───────── names the database behind a group, in the metadata of its commits
//!  RecordLossDetector ──── reports what a group lost because its topic's retention was too short
//!  Tail ───────── reads what is appended to a topic from now on, for live pages
//!  TopicReader ───────── reads a topic in bounded chunks, for dead letters
//!  admin ──────── creates and checks topics
//! ```
//!
//! **Offsets.** The client commits by itself, four times a second, at revocation and at close. It commits only offsets
//! that [`LogReader::done`](crate::log::LogReader::done) stored, which happens after the transaction and the messages
//! that follow from it are durable. A late or lost commit costs a redelivery, never a record.
//!
//! **Partitioners.** librdkafka's default partitioner (CRC32) and Java's (murmur2) differ, so producers of this crate
//! use murmur2. A saga's inputs must be in one partition, and are sent to [`home_partition`] explicitly.
//!
//! All types of this module must be created inside a tokio runtime.

pub mod admin;
mod admission;
mod alone;
mod claim;
mod config;
mod context;
mod delivery;
mod error;
mod loss;
mod mark;
mod offsets;
mod partition;
mod producer;
mod reader;
mod record;
mod scan;
mod standstill;
mod tail;
mod topic_id;
mod writer;

pub use admin::{
    TopicProblem, TopicRequirement, TopicSpec, check_topics, ensure_topics, health, health_check,
};
pub use config::{KafkaConfig, KafkaConfigError, SaslMechanism, SecurityProtocol};
pub use error::{Refusal, is_unavailable};
pub use loss::{RecordLoss, RecordLossDetector};
pub use mark::Mark;
pub use offsets::{Committed, GroupOffsets};
pub use partition::home_partition;
pub use reader::{KafkaReader, ReaderOptions};
pub use record::RECORD_LIMIT_BYTES;
pub use scan::{Chunk, OffsetRange, TopicReader};
pub use tail::Tail;
pub use writer::KafkaWriter;

use crate::log::LogError;
use std::time::Duration;

/// Longest time for a query of metadata, offsets or watermarks: longer than a leader election in a healthy cluster, and
/// shorter than a user waits for a page.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a blocking call of the client on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Unavailable(Box::new(error))),
    }
}
