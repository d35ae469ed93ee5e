//! Counts open letters by topic and reason, for alerting. Open letters do not change the service's health: a bad
//! message is its sender's fault, and everything else continues.

use super::service::{DeadLetters, LetterError, written_at};
use crate::{store::dead_letter, telemetry};
use chrono::{DateTime, Utc};
use saga_core::message::IncomingRecord;
use saga_messaging::{
    dead_letter::{DeadLetter, reason},
    kafka::OffsetRange,
};
use saga_postgres::silence::limited;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Time between two rounds. Longer than a round over a million known letters takes.
const INTERVAL: Duration = Duration::from_secs(10);
/// The most letters that one round reads of one topic. After a start, several rounds may be needed to catch up.
const READ_LIMIT: usize = 5_000;
/// The most letters of one read from the broker.
const CHUNK: usize = 500;
/// The most letters of one partition that are counted, 24 bytes each. Letters beyond it are not counted.
const KEPT_LIMIT: usize = 500_000;

/// Counts open letters as they are written and as people decide about them.
pub struct OpenLetterGauge {
    service: DeadLetters,
    partitions: BTreeMap<(String, i32), PartitionLetters>,
    /// Labels of the gauges that were set, so that a gauge without letters is set back to zero.
    shown: BTreeSet<(String, &'static str)>,
}

/// The known letters of a partition, oldest first.
#[derive(Debug, Default)]
struct PartitionLetters {
    next: i64,
    letters: VecDeque<LetterRef>,
}

#[derive(Clone, Copy, Debug)]
struct LetterRef {
    offset: i64,
    written_at: DateTime<Utc>,
    reason: &'static str,
}

type Counts = BTreeMap<&'static str, u64>;

impl OpenLetterGauge {
    pub fn new(service: DeadLetters) -> Self {
        Self {
            service,
            partitions: BTreeMap::new(),
            shown: BTreeSet::new(),
        }
    }

    /// Counts in rounds until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.round() => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn round(&mut self) {
        for topic in self.service.topics().clone() {
            match self.count(&topic).await {
                Ok(counts) => self.show(&topic, &counts),
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    messaging.kafka.topic = topic,
                    "dead letters cannot be counted now"
                ),
            }
        }
    }

    async fn count(&mut self, topic: &str) -> Result<Counts, LetterError> {
        let mut left = READ_LIMIT;
        let mut counts = Counts::new();
        for (partition, window) in self.service.scan().windows(topic).await? {
            let counted = self
                .partitions
                .entry((topic.to_owned(), partition))
                .or_default();
            counted.forget(window);
            while counted.next < window.end && left > 0 && counted.letters.len() < KEPT_LIMIT {
                let scan = self.service.scan();
                let looked = scan
                    .look(topic, partition, counted.next, CHUNK.min(left))
                    .await?;
                if looked.next <= counted.next {
                    break;
                }
                left = left.saturating_sub(looked.records.len());
                counted.take(looked.records, looked.next);
            }
            let pool = self.service.store().reporting();
            let decided = dead_letter::decided_from(pool, topic, partition, window.start);
            let decided = limited(decided).await?;
            counted.open(&decided.into_iter().collect(), &mut counts);
        }
        Ok(counts)
    }

    fn show(&mut self, topic: &str, counts: &Counts) {
        for reason in counts.keys() {
            self.shown.insert((topic.to_owned(), *reason));
        }
        for (shown, reason) in self.shown.iter().filter(|(shown, _)| shown == topic) {
            let count = counts.get(reason).copied().unwrap_or_default();
            telemetry::dead_letters_open(shown, reason, count);
        }
    }
}

impl PartitionLetters {
    /// Forgets the letters that the topic's retention has removed, or all of them if the topic was recreated.
    fn forget(&mut self, window: OffsetRange) {
        if window.end < self.next {
            *self = Self::default();
        }
        while self
            .letters
            .front()
            .is_some_and(|letter| letter.offset < window.start)
        {
            self.letters.pop_front();
        }
        self.next = self.next.max(window.start);
    }

    fn take(&mut self, records: Vec<IncomingRecord>, next: i64) {
        self.letters.extend(records.into_iter().map(|record| {
            let letter = DeadLetter::read(record);
            LetterRef {
                offset: letter.id.offset,
                written_at: written_at(letter.written_at_ms),
                reason: reason::label(&letter.reason),
            }
        }));
        self.next = next;
    }

    fn open(&self, decided: &HashSet<(i64, DateTime<Utc>)>, counts: &mut Counts) {
        for letter in &self.letters {
            if !decided.contains(&(letter.offset, letter.written_at)) {
                *counts.entry(letter.reason).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::message::header;

    fn letter(offset: i64, why: &str) -> IncomingRecord {
        IncomingRecord {
            topic: "saga.inputs.dlq".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: 1_000 + offset,
            key: None,
            headers: [(header::DEAD_LETTER_REASON, why)].into(),
            payload: None,
        }
    }

    fn counts(counted: &PartitionLetters, decided: &[i64]) -> Vec<(&'static str, u64)> {
        let decided = decided
            .iter()
            .map(|offset| (*offset, written_at(1_000 + offset)));
        let mut counts = Counts::new();
        counted.open(&decided.collect(), &mut counts);
        counts.into_iter().collect()
    }

    #[test]
    fn letters_are_open_until_they_are_decided_or_gone() {
        let mut counted = PartitionLetters::default();
        let records = vec![
            letter(0, "bad_payload"),
            letter(1, "bad_payload"),
            letter(2, "made up by somebody"),
        ];
        counted.take(records, 3);
        assert_eq!(counts(&counted, &[]), [("bad_payload", 2), ("other", 1)]);
        assert_eq!(counts(&counted, &[1, 2]), [("bad_payload", 1)]);
        counted.forget(OffsetRange { start: 1, end: 3 });
        assert_eq!(counts(&counted, &[1]), [("other", 1)]);
    }

    #[test]
    fn a_recreated_topic_is_counted_from_its_beginning() {
        let mut counted = PartitionLetters::default();
        counted.take(vec![letter(7, "bad_payload")], 8);
        counted.forget(OffsetRange { start: 0, end: 2 });
        assert_eq!((counted.next, counts(&counted, &[])), (0, Vec::new()));
    }
}
