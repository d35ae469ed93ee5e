//! What the rule needs of a log. Kafka is one implementation, the simulator's is the other.

use async_trait::async_trait;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use std::time::Duration;
use thiserror::Error;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

/// What a poll brings, in the order in which it must be handled.
#[derive(Clone, Debug, PartialEq)]
pub enum Polled {
    /// At least one record; those of one partition in offset order.
    Records(Vec<IncomingRecord>),
    /// Partitions that are this member's from now on.
    Assigned(Vec<TopicPartition>),
    /// Partitions that are no longer this member's. Everything polled before was finished first.
    Revoked(Vec<TopicPartition>),
}

/// How a wait between two tries ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The time is over; the partitions are still this member's.
    Elapsed,
    /// Partitions were taken away meanwhile, and their records are somebody else's now. The next polls say which,
    /// before they bring any record of a later assignment. The other partitions' records are still to be finished.
    Lost,
}

#[derive(Debug, Error)]
pub enum LogError {
    /// The broker is away or busy: try again.
    #[error("the log is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Trying again will not help (a topic is missing, authorization is refused).
    #[error("the log refuses")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One of the records is larger than its topic takes; others may have been written.
    #[error("a record is too large for the log")]
    TooLarge(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads the records of a consumer group's member.
#[async_trait]
pub trait LogReader: Send {
    /// Waits for something to handle: whatever has arrived, up to `limit` records. Cancel safe.
    async fn poll(&mut self, limit: usize) -> Result<Polled, LogError>;

    /// The work of these records is durable, and so is what follows from it: their offsets may be committed.
    fn done(&mut self, records: &[IncomingRecord]) -> Result<(), LogError>;

    /// Waits `time` with the group kept and no more than a bounded intake, while the database or the broker is away. Dropped
    /// half-way only before `close`.
    async fn hold(&mut self, time: Duration) -> Held;

    /// Commits what is done and leaves the group.
    async fn close(&mut self);
}

/// Where a produced record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub partition: i32,
    pub offset: i64,
}

/// Appends records.
#[async_trait]
pub trait LogWriter: Send + Sync {
    /// Returns once every record is acknowledged by all in-sync replicas, in the order given. On an error some may
    /// have been written: they are sent again with the same ids.
    async fn publish(&self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError>;
}
