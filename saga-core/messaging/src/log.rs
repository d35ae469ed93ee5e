//! The interface between a consumer and its log. It is implemented for Kafka and by the simulator.

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

/// The result of a poll. Results must be handled in the order of the polls.
#[derive(Clone, Debug, PartialEq)]
pub enum PollResult {
    /// At least one record; the records of one partition are in offset order.
    Records(Vec<IncomingRecord>),
    /// Partitions that are assigned to this member from now on.
    Assigned(Vec<TopicPartition>),
    /// Partitions that were revoked from this member. Everything polled before was finished first.
    Revoked(Vec<TopicPartition>),
}

/// The way in which a wait between two attempts ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseEnded {
    /// The time is over, and the partitions are still assigned to this member.
    Elapsed,
    /// Partitions were revoked during the wait, and their records belong to another member. The next polls name the
    /// partitions before they return any record of a later assignment. The records of the other partitions must still
    /// be finished.
    Revoked,
}

#[derive(Debug, Error)]
pub enum LogError {
    /// The broker is unavailable or busy: try again.
    #[error("the log is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another attempt will not help, because a topic is missing or authorization is refused.
    #[error("the log refuses")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One of the records is larger than its topic allows; others may have been written.
    #[error("a record is too large for the log")]
    TooLarge(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads records as a member of a consumer group.
#[async_trait]
pub trait LogReader: Send {
    /// Waits until there is something to handle, and returns up to `limit` records that have arrived. Cancel safe.
    async fn poll(&mut self, limit: usize) -> Result<PollResult, LogError>;

    /// Marks the work of these records and its outputs as durable: their offsets may be committed.
    fn done(&mut self, records: &[IncomingRecord]) -> Result<(), LogError>;

    /// Waits for `time` while the database or the broker is unavailable. The member stays in its group, and buffers a
    /// bounded number of records. The future may be dropped before its end only if `close` follows.
    async fn hold(&mut self, time: Duration) -> PauseEnded;

    /// Commits the offsets of finished records and leaves the group.
    async fn close(&mut self);
}

/// Partition and offset of a produced record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub partition: i32,
    pub offset: i64,
}

/// Appends records to the log.
#[async_trait]
pub trait LogWriter: Send + Sync {
    /// Appends those records that have no delivery in `delivered`, in the order given, and sets their deliveries.
    /// Returns once all in-sync replicas have acknowledged them. After an error, the acknowledged records have their
    /// deliveries, so that another attempt sends only the rest. The rest may have been written, too: a record that is
    /// sent again has the same id.
    ///
    /// `delivered` has as many elements as `records`.
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError>;

    /// Appends all records, and returns their deliveries.
    async fn publish(&self, records: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError> {
        let mut delivered = vec![None; records.len()];
        self.publish_rest(records, &mut delivered).await?;
        Ok(delivered.into_iter().flatten().collect())
    }
}
