//! Detects records that a group has lost: its topic's retention removed them before they were consumed.
//!
//! A consumer that comes back after longer than the retention finds that its offset no longer exists, and silently
//! continues with the oldest record. The records cannot be restored, but the loss must be reported, and a caller that
//! knows what depends on them can resend what is in flight.
//!
//! The check runs when partitions are assigned, before their first record is handled: afterwards the group's offset
//! moves on, and the loss can no longer be detected. Later, a gap between the offsets of two records is a sign of a
//! loss. It may also be the markers of a transaction, so the detector then checks whether records were removed before a
//! slow consumer reached them.

use super::{GroupOffsets, KafkaConfig};
use crate::{
    consumer::{BatchError, Processor},
    database::Database,
    log::{Delivered, LogError, TopicPartition},
};
use async_trait::async_trait;
use metrics::counter;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use std::{collections::BTreeMap, sync::Arc};
use tracing::{error, warn};

/// A loss of records in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLoss {
    /// This many records were removed before they were consumed.
    Removed(u64),
    /// The partition is shorter than the group's offset: its topic was recreated.
    Recreated,
}

/// Compares a group's offset with the offsets that a partition still holds. A group that has committed nothing has the
/// offset 0.
fn lost(committed: i64, start: i64, end: i64) -> Option<RecordLoss> {
    if committed > end {
        Some(RecordLoss::Recreated)
    } else if committed < start {
        Some(RecordLoss::Removed((start - committed).unsigned_abs()))
    } else {
        None
    }
}

/// A processor whose losses are detected.
pub struct RecordLossDetector<P, F> {
    processor: P,
    watch: Watch<F>,
    /// The offset after the last handled record, by partition.
    next: BTreeMap<i32, i64>,
}

struct Watch<F> {
    offsets: GroupOffsets,
    group: String,
    topic: String,
    database: Arc<Database>,
    on_loss: F,
}

impl<P: Processor, F: Fn(&TopicPartition, RecordLoss) + Send + Sync> RecordLossDetector<P, F> {
    /// Detects what `group` loses in `topic`. `on_loss` is called for each loss after it was logged. `database` knows
    /// which partitions were recreated before the start.
    pub fn new(
        processor: P,
        config: &KafkaConfig,
        (group, topic): (&str, &str),
        database: Arc<Database>,
        on_loss: F,
    ) -> Result<Self, LogError> {
        let watch = Watch {
            offsets: GroupOffsets::connect(config, group)?,
            group: group.to_owned(),
            topic: topic.to_owned(),
            database,
            on_loss,
        };
        Ok(Self {
            processor,
            watch,
            next: BTreeMap::new(),
        })
    }
}

impl<F: Fn(&TopicPartition, RecordLoss)> Watch<F> {
    /// Checks a gap: the offset `next` was expected in the partition, and a later one arrived.
    async fn check_gap(&self, place: &TopicPartition, next: i64) {
        match self.offsets.watermarks(&self.topic, place.partition).await {
            Ok((start, end)) => {
                if let Some(lost) = lost(next, start, end) {
                    self.alarm(place, lost);
                }
            }
            Err(error) => self.unseen(&error),
        }
    }

    /// Checks newly assigned partitions. If their offsets cannot be read, nothing is known, and nothing is stopped.
    async fn check_assigned(&self, partitions: &[TopicPartition]) {
        let committed = match self.offsets.committed(&self.topic).await {
            Ok(committed) => committed,
            Err(error) => return self.unseen(&error),
        };
        for place in partitions {
            match self.lost_of(place, &committed).await {
                Ok(None) => {}
                Ok(Some(lost)) => self.alarm(place, lost),
                Err(error) => self.unseen(&error),
            }
        }
    }

    async fn lost_of(
        &self,
        place: &TopicPartition,
        committed: &BTreeMap<i32, i64>,
    ) -> Result<Option<RecordLoss>, LogError> {
        if self.database.take_recreated(place) {
            return Ok(Some(RecordLoss::Recreated));
        }
        let Some(committed) = committed.get(&place.partition) else {
            return Ok(None);
        };
        let (start, end) = self
            .offsets
            .watermarks(&self.topic, place.partition)
            .await?;
        Ok(lost(*committed, start, end))
    }

    fn unseen(&self, error: &LogError) {
        warn!(
            error = error as &dyn std::error::Error,
            messaging.kafka.topic = self.topic,
            messaging.consumer.group.name = self.group,
            "offsets cannot be read: lost records may not be detected"
        );
    }

    fn alarm(&self, place: &TopicPartition, lost: RecordLoss) {
        let (records, why) = match lost {
            RecordLoss::Removed(records) => (
                records,
                "the topic's retention, by time or by size, was shorter than the time in which it was not consumed",
            ),
            RecordLoss::Recreated => (1, "the topic was recreated"),
        };
        counter!(
            "saga_records_lost_total",
            "topic" => self.topic.clone(),
            "partition" => place.partition.to_string(),
            "group" => self.group.clone()
        )
        .increment(records);
        error!(
            messaging.kafka.topic = place.topic,
            messaging.kafka.partition = place.partition,
            messaging.consumer.group.name = self.group,
            lost = ?lost,
            "records are lost: {why}"
        );
        (self.on_loss)(place, lost);
    }
}

#[async_trait]
impl<P: Processor, F: Fn(&TopicPartition, RecordLoss) + Send + Sync> Processor
    for RecordLossDetector<P, F>
{
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        for (place, next) in gaps(&mut self.next, records) {
            self.watch.check_gap(&place, next).await;
        }
        self.processor.process(records).await
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.processor.reject(record, why).await
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        self.processor.published(outputs, delivered);
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        self.processor.assigned(partitions).await?;
        self.watch.check_assigned(partitions).await;
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        for place in partitions {
            self.next.remove(&place.partition);
        }
        self.processor.revoked(partitions);
    }
}

/// Returns the partitions with a gap before a record, and the offset that was expected there. Records that are handled
/// again make no gaps.
fn gaps(next: &mut BTreeMap<i32, i64>, records: &[IncomingRecord]) -> Vec<(TopicPartition, i64)> {
    let mut gaps = Vec::new();
    for record in records {
        let expected = next.entry(record.partition).or_insert(record.offset);
        if record.offset > *expected {
            let place = TopicPartition {
                topic: record.topic.clone(),
                partition: record.partition,
            };
            gaps.push((place, *expected));
        }
        *expected = (*expected).max(record.offset + 1);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::message::Headers;

    fn check(committed: i64, start: i64, end: i64, expected: Option<RecordLoss>) {
        assert_eq!(
            lost(committed, start, end),
            expected,
            "{committed} of {start}..{end}"
        );
    }

    #[test]
    fn records_removed_before_they_were_consumed_are_lost() {
        check(0, 0, 0, None);
        check(0, 0, 5, None);
        check(5, 5, 5, None);
        check(7, 5, 9, None);
        check(3, 5, 9, Some(RecordLoss::Removed(2)));
        check(0, 9, 9, Some(RecordLoss::Removed(9)));
        check(9, 0, 4, Some(RecordLoss::Recreated));
    }

    #[test]
    fn offsets_that_are_missing_between_records_are_seen_once() {
        let record = |partition, offset| IncomingRecord {
            topic: "t".to_owned(),
            partition,
            offset,
            timestamp_ms: 0,
            key: None,
            headers: Headers::default(),
            payload: None,
        };
        let mut next = BTreeMap::new();
        let mut seen = |records: &[IncomingRecord]| -> Vec<(i32, i64)> {
            let gaps = gaps(&mut next, records);
            gaps.into_iter()
                .map(|(place, expected)| (place.partition, expected))
                .collect()
        };
        assert_eq!(seen(&[record(0, 7), record(1, 3), record(0, 8)]), []);
        let batch = [record(0, 9), record(0, 12), record(1, 5)];
        assert_eq!(seen(&batch), [(0, 10), (1, 4)]);
        assert_eq!(seen(&batch), [], "the same batch again");
        assert_eq!(seen(&[record(0, 13)]), []);
    }
}
