//! Records that a group lost: its topic's retention removed them before they were consumed.
//!
//! A consumer that comes back after longer than that finds its place gone, and goes on with the oldest record there is,
//! without a word. Nothing can bring the records back, but somebody must be told; and who knows what hangs on them can
//! send again what is in flight.
//!
//! The look is taken when partitions are assigned, before the first record of theirs is handled: from then on the group's
//! place moves on, and nobody could tell any more. Later, offsets that are missing between two records give a loss away:
//! they may be a transaction's markers, or records that were removed before a slow consumer came to them.

use super::{GroupOffsets, KafkaConfig};
use crate::{
    log::{Delivered, LogError, TopicPartition},
    rule::{BatchError, Processor},
};
use async_trait::async_trait;
use metrics::counter;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use std::collections::BTreeMap;
use tracing::{error, warn};

/// What a group lost of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// So many records were removed before they were consumed.
    Removed(u64),
    /// The partition is shorter than what was consumed of it: its topic was made anew.
    MadeAnew,
}

/// Compares a group's place with what a partition still holds. A group without a place has committed none, which is 0.
fn lost(committed: i64, start: i64, end: i64) -> Option<Lost> {
    if committed > end {
        Some(Lost::MadeAnew)
    } else if committed < start {
        Some(Lost::Removed((start - committed).unsigned_abs()))
    } else {
        None
    }
}

/// A processor that is told of its losses.
pub struct LossWatch<P, F> {
    processor: P,
    watch: Watch<F>,
    /// By partition, the offset behind what was handled last.
    next: BTreeMap<i32, i64>,
}

struct Watch<F> {
    offsets: GroupOffsets,
    group: String,
    topic: String,
    tell: F,
}

impl<P: Processor, F: Fn(&TopicPartition, Lost) + Send + Sync> LossWatch<P, F> {
    /// Watches what `group` loses of `topic`; `tell` hears of each loss, behind the alarm.
    pub fn new(
        processor: P,
        config: &KafkaConfig,
        group: &str,
        topic: &str,
        tell: F,
    ) -> Result<Self, LogError> {
        let watch = Watch {
            offsets: GroupOffsets::connect(config, group)?,
            group: group.to_owned(),
            topic: topic.to_owned(),
            tell,
        };
        Ok(Self {
            processor,
            watch,
            next: BTreeMap::new(),
        })
    }
}

impl<F: Fn(&TopicPartition, Lost)> Watch<F> {
    /// A partition's records do not go on at `next`.
    async fn look_at_gap(&self, place: &TopicPartition, next: i64) {
        match self.offsets.watermarks(&self.topic, place.partition).await {
            Ok((start, end)) => {
                if let Some(lost) = lost(next, start, end) {
                    self.alarm(place, lost);
                }
            }
            Err(error) => self.unseen(&error),
        }
    }

    /// Offsets that cannot be read now tell nothing, and stop nobody.
    async fn look(&self, partitions: &[TopicPartition]) {
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
    ) -> Result<Option<Lost>, LogError> {
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
            "whether records were lost cannot be told"
        );
    }

    fn alarm(&self, place: &TopicPartition, lost: Lost) {
        let records = match lost {
            Lost::Removed(records) => records,
            Lost::MadeAnew => 1,
        };
        counter!(
            "saga_records_lost_total",
            "topic" => self.topic.clone(),
            "group" => self.group.clone()
        )
        .increment(records);
        error!(
            messaging.kafka.topic = place.topic,
            messaging.kafka.partition = place.partition,
            messaging.consumer.group.name = self.group,
            lost = ?lost,
            "records are lost: the topic's retention was shorter than the time in which nobody consumed it"
        );
        (self.tell)(place, lost);
    }
}

#[async_trait]
impl<P: Processor, F: Fn(&TopicPartition, Lost) + Send + Sync> Processor for LossWatch<P, F> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        for (place, next) in gaps(&mut self.next, records) {
            self.watch.look_at_gap(&place, next).await;
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
        self.watch.look(partitions).await;
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        for place in partitions {
            self.next.remove(&place.partition);
        }
        self.processor.revoked(partitions);
    }
}

/// Where offsets are missing before a record, and which was expected there. What is handled again has no gaps.
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

    fn check(committed: i64, start: i64, end: i64, expected: Option<Lost>) {
        assert_eq!(
            lost(committed, start, end),
            expected,
            "{committed} of {start}..{end}"
        );
    }

    #[test]
    fn what_was_removed_before_it_was_consumed_is_lost() {
        check(0, 0, 0, None);
        check(0, 0, 5, None);
        check(5, 5, 5, None);
        check(7, 5, 9, None);
        check(3, 5, 9, Some(Lost::Removed(2)));
        check(0, 9, 9, Some(Lost::Removed(9)));
        check(9, 0, 4, Some(Lost::MadeAnew));
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
