//! The promises of a [`LogReader`] and a [`LogWriter`].

use super::must_end;
use async_trait::async_trait;
use saga_core::message::{Headers, IncomingRecord, OutgoingRecord};
use saga_messaging::log::{LogReader, LogWriter, PauseEnded, PollResult, TopicPartition};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// Makes logs of the implementation under test.
#[async_trait]
pub trait LogBench: Send + Sync {
    type Reader: LogReader + 'static;
    type Writer: LogWriter;

    /// Creates an empty topic for one test, and returns its name.
    async fn topic(&self, partitions: i32) -> String;

    async fn writer(&self) -> Self::Writer;

    /// Returns a new member of `group`.
    async fn join(&self, group: &str, topic: &str) -> Self::Reader;
}

/// Makes one test of each promise; see [`participant_store_contract!`](crate::participant_store_contract).
#[macro_export]
macro_rules! log_contract {
    ($bench:expr, $(#[$test:meta])+) => {
        $crate::contract_tests! {
            $bench, [$(#[$test])+], [$crate::contract::log],
            records_are_read_as_they_were_written,
            a_partition_keeps_its_order,
            a_key_has_one_partition,
            it_is_told_where_a_record_stands,
            a_poll_brings_no_more_than_asked_for,
            a_group_begins_at_the_beginning,
            what_is_not_done_is_read_again,
            what_is_done_is_not_read_again,
            each_group_reads_everything,
            assignment_comes_before_records,
            a_new_member_takes_partitions_over,
            a_hold_keeps_the_partitions_and_their_order,
            a_hold_of_no_time_returns_at_once,
            a_hold_tells_of_partitions_that_are_lost,
            what_was_revoked_cannot_be_done_any_more
        }
    };
}

const GROUP: &str = "contract";

fn record(topic: &str, partition: Option<i32>, text: &str) -> OutgoingRecord {
    OutgoingRecord {
        topic: topic.to_owned(),
        partition,
        key: text.as_bytes().to_vec(),
        headers: Headers::default(),
        payload: text.as_bytes().to_vec(),
    }
}

fn text(record: &IncomingRecord) -> String {
    String::from_utf8_lossy(record.payload.as_deref().unwrap_or_default()).into_owned()
}

fn texts(records: &[IncomingRecord]) -> Vec<String> {
    records.iter().map(text).collect()
}

/// Publishes numbers, spread over the partitions in turn.
async fn publish<W: LogWriter>(
    writer: &W,
    topic: &str,
    numbers: std::ops::Range<i32>,
    partitions: i32,
) {
    let records: Vec<OutgoingRecord> = numbers
        .map(|n| record(topic, Some(n % partitions), &n.to_string()))
        .collect();
    writer.publish(&records).await.expect("records are written");
}

/// A member of a group, with the partitions that it was assigned.
struct Member<R> {
    reader: R,
    owned: BTreeSet<TopicPartition>,
}

impl<R: LogReader> Member<R> {
    async fn of<B: LogBench<Reader = R>>(bench: &B, group: &str, topic: &str) -> Self {
        Self {
            reader: bench.join(group, topic).await,
            owned: BTreeSet::new(),
        }
    }

    fn note(&mut self, polled: &PollResult) {
        match polled {
            PollResult::Records(records) => {
                for record in records {
                    let place = TopicPartition {
                        topic: record.topic.clone(),
                        partition: record.partition,
                    };
                    assert!(self.owned.contains(&place), "{place:?} is not ours");
                }
            }
            PollResult::Assigned(partitions) => {
                for partition in partitions {
                    assert!(self.owned.insert(partition.clone()), "{partition:?} twice");
                }
            }
            PollResult::Revoked(partitions) => {
                for partition in partitions {
                    assert!(self.owned.remove(partition), "{partition:?} was not ours");
                }
            }
        }
    }

    async fn poll(&mut self, limit: usize) -> PollResult {
        let polled = must_end(self.reader.poll(limit), "a poll").await;
        let polled = polled.expect("the log is there");
        self.note(&polled);
        polled
    }

    /// Polls until `count` records have come, and returns them.
    async fn take(&mut self, count: usize) -> Vec<IncomingRecord> {
        let mut taken = Vec::new();
        while taken.len() < count {
            if let PollResult::Records(records) = self.poll(count - taken.len()).await {
                taken.extend(records);
            }
        }
        taken
    }

    /// Polls until `count` partitions are assigned. Records that come meanwhile are not marked as done.
    async fn own(&mut self, count: usize) {
        while self.owned.len() != count {
            self.poll(1).await;
        }
    }

    /// Polls for a moment, as an idle member must.
    async fn idle(&mut self) {
        if let Ok(polled) = timeout(Duration::from_millis(50), self.reader.poll(1)).await {
            let polled = polled.expect("the log is there");
            self.note(&polled);
        }
    }
}

pub async fn records_are_read_as_they_were_written<B: LogBench>(bench: &B) {
    let topic = bench.topic(2).await;
    let full = OutgoingRecord {
        key: b"the key".to_vec(),
        headers: [("ce_id", &b"a"[..]), ("twice", &[0, 0xff]), ("twice", &[])].into(),
        ..record(&topic, Some(1), "{}")
    };
    let bare = OutgoingRecord {
        key: Vec::new(),
        payload: Vec::new(),
        ..record(&topic, Some(1), "")
    };
    let writer = bench.writer().await;
    writer
        .publish(&[full.clone(), bare])
        .await
        .expect("written");
    let mut member = Member::of(bench, GROUP, &topic).await;
    let read = member.take(2).await;
    assert_eq!((read[0].partition, read[1].partition), (1, 1));
    assert_eq!(read[0].topic, topic);
    assert_eq!(read[0].key, Some(full.key));
    assert_eq!(read[0].headers, full.headers);
    assert_eq!(read[0].payload, Some(full.payload));
    assert!(read[0].timestamp_ms > 0);
    assert_eq!((&read[1].key, &read[1].payload), (&None, &None));
    assert!(read[1].offset > read[0].offset);
    member.reader.close().await;
}

pub async fn a_partition_keeps_its_order<B: LogBench>(bench: &B) {
    let topic = bench.topic(3).await;
    let writer = bench.writer().await;
    for wave in 0..4 {
        publish(&writer, &topic, wave * 30..(wave + 1) * 30, 3).await;
    }
    let mut member = Member::of(bench, GROUP, &topic).await;
    let read = member.take(120).await;
    for partition in 0..3 {
        let of_partition: Vec<&IncomingRecord> = read
            .iter()
            .filter(|record| record.partition == partition)
            .collect();
        let numbers: Vec<i32> = of_partition
            .iter()
            .map(|r| text(r).parse().unwrap_or(-1))
            .collect();
        assert_eq!(
            numbers,
            (0..120).filter(|n| n % 3 == partition).collect::<Vec<_>>()
        );
        assert!(of_partition.is_sorted_by(|a, b| a.offset < b.offset));
    }
    member.reader.close().await;
}

pub async fn a_key_has_one_partition<B: LogBench>(bench: &B) {
    let topic = bench.topic(4).await;
    let writer = bench.writer().await;
    let keyed: Vec<OutgoingRecord> = (0..40)
        .map(|n| OutgoingRecord {
            key: format!("key {}", n % 8).into_bytes(),
            ..record(&topic, None, "text")
        })
        .collect();
    let at = writer.publish(&keyed).await.expect("written");
    for (n, delivered) in at.iter().enumerate() {
        assert_eq!(delivered.partition, at[n % 8].partition, "record {n}");
        assert!((0..4).contains(&delivered.partition));
    }
}

pub async fn it_is_told_where_a_record_stands<B: LogBench>(bench: &B) {
    let topic = bench.topic(2).await;
    let writer = bench.writer().await;
    let records: Vec<OutgoingRecord> = (0..6)
        .map(|n| record(&topic, Some(n % 2), &n.to_string()))
        .collect();
    let told = writer.publish(&records).await.expect("written");
    let mut member = Member::of(bench, GROUP, &topic).await;
    for read in member.take(6).await {
        let n: usize = text(&read).parse().expect("a number");
        let at = (told[n].partition, told[n].offset);
        assert_eq!(at, (read.partition, read.offset));
    }
    member.reader.close().await;
}

pub async fn a_poll_brings_no_more_than_asked_for<B: LogBench>(bench: &B) {
    let topic = bench.topic(1).await;
    publish(&bench.writer().await, &topic, 0..10, 1).await;
    let mut member = Member::of(bench, GROUP, &topic).await;
    let mut read = Vec::new();
    while read.len() < 10 {
        if let PollResult::Records(records) = member.poll(3).await {
            assert!((1..=3).contains(&records.len()));
            read.extend(records);
        }
    }
    member.reader.close().await;
}

pub async fn a_group_begins_at_the_beginning<B: LogBench>(bench: &B) {
    let topic = bench.topic(1).await;
    publish(&bench.writer().await, &topic, 0..3, 1).await;
    let mut member = Member::of(bench, GROUP, &topic).await;
    assert_eq!(texts(&member.take(3).await), ["0", "1", "2"]);
    member.reader.close().await;
}

pub async fn what_is_not_done_is_read_again<B: LogBench>(bench: &B) {
    let topic = bench.topic(1).await;
    publish(&bench.writer().await, &topic, 0..4, 1).await;
    let mut first = Member::of(bench, GROUP, &topic).await;
    let read = first.take(4).await;
    first.reader.done(&read[..2]).expect("the log is there");
    first.reader.close().await;
    let mut second = Member::of(bench, GROUP, &topic).await;
    assert_eq!(texts(&second.take(2).await), ["2", "3"]);
    second.reader.close().await;
}

pub async fn what_is_done_is_not_read_again<B: LogBench>(bench: &B) {
    let topic = bench.topic(2).await;
    let writer = bench.writer().await;
    publish(&writer, &topic, 0..4, 2).await;
    let mut first = Member::of(bench, GROUP, &topic).await;
    let read = first.take(4).await;
    first.reader.done(&read).expect("the log is there");
    first.reader.close().await;
    publish(&writer, &topic, 4..6, 2).await;
    let mut second = Member::of(bench, GROUP, &topic).await;
    let mut news = texts(&second.take(2).await);
    news.sort();
    assert_eq!(news, ["4", "5"]);
    second.reader.close().await;
}

pub async fn each_group_reads_everything<B: LogBench>(bench: &B) {
    let topic = bench.topic(1).await;
    publish(&bench.writer().await, &topic, 0..2, 1).await;
    for group in ["one", "two"] {
        let mut member = Member::of(bench, group, &topic).await;
        let read = member.take(2).await;
        assert_eq!(texts(&read), ["0", "1"]);
        member.reader.done(&read).expect("the log is there");
        member.reader.close().await;
    }
}

/// [`Member::note`] asserts this for every record of every test here; this test has nothing else.
pub async fn assignment_comes_before_records<B: LogBench>(bench: &B) {
    let topic = bench.topic(3).await;
    publish(&bench.writer().await, &topic, 0..3, 3).await;
    let mut member = Member::of(bench, GROUP, &topic).await;
    assert!(matches!(member.poll(10).await, PollResult::Assigned(_)));
    member.own(3).await;
    member.reader.close().await;
}

pub async fn a_new_member_takes_partitions_over<B: LogBench>(bench: &B) {
    let topic = bench.topic(4).await;
    let mut first = Member::of(bench, GROUP, &topic).await;
    first.own(4).await;
    let mut second = Member::of(bench, GROUP, &topic).await;
    let shared = async {
        while second.owned.is_empty() || first.owned.len() + second.owned.len() != 4 {
            first.idle().await;
            second.idle().await;
        }
    };
    must_end(shared, "sharing").await;
    assert!(first.owned.is_disjoint(&second.owned));
    first.reader.close().await;
    must_end(second.own(4), "taking over").await;
    second.reader.close().await;
}

pub async fn a_hold_keeps_the_partitions_and_their_order<B: LogBench>(bench: &B) {
    let topic = bench.topic(2).await;
    let writer = bench.writer().await;
    publish(&writer, &topic, 0..10, 2).await;
    let mut member = Member::of(bench, GROUP, &topic).await;
    let mut read = member.take(4).await;
    let held = member.reader.hold(Duration::from_millis(200)).await;
    assert_eq!(held, PauseEnded::Elapsed);
    publish(&writer, &topic, 10..12, 2).await;
    read.extend(member.take(8).await);
    for partition in 0..2 {
        let numbers: Vec<String> = read
            .iter()
            .filter(|record| record.partition == partition)
            .map(text)
            .collect();
        let expected: Vec<String> = (0..12)
            .filter(|n| n % 2 == partition)
            .map(|n| n.to_string())
            .collect();
        assert_eq!(numbers, expected);
    }
    member.reader.close().await;
}

pub async fn a_hold_of_no_time_returns_at_once<B: LogBench>(bench: &B) {
    let topic = bench.topic(1).await;
    let mut member = Member::of(bench, GROUP, &topic).await;
    member.own(1).await;
    for _ in 0..20 {
        let held = must_end(member.reader.hold(Duration::ZERO), "a hold").await;
        assert_eq!(held, PauseEnded::Elapsed);
    }
    member.reader.close().await;
}

pub async fn a_hold_tells_of_partitions_that_are_lost<B: LogBench>(bench: &B) {
    let topic = bench.topic(2).await;
    let mut first = Member::of(bench, GROUP, &topic).await;
    first.own(2).await;
    let mut second = Member::of(bench, GROUP, &topic).await;
    let losing = async {
        while first.reader.hold(Duration::from_millis(100)).await == PauseEnded::Elapsed {
            second.idle().await;
        }
    };
    must_end(losing, "losing a partition").await;
    let told = loop {
        match first.poll(10).await {
            PollResult::Revoked(partitions) => break partitions,
            PollResult::Assigned(_) => {}
            PollResult::Records(records) => panic!("records came first: {records:?}"),
        }
    };
    assert!(!told.is_empty());
    first.reader.close().await;
    second.reader.close().await;
}

pub async fn what_was_revoked_cannot_be_done_any_more<B: LogBench>(bench: &B) {
    let topic = bench.topic(2).await;
    publish(&bench.writer().await, &topic, 0..2, 2).await;
    let mut first = Member::of(bench, GROUP, &topic).await;
    let read = first.take(2).await;
    let mut second = Member::of(bench, GROUP, &topic).await;
    let sharing = async {
        while second.owned.is_empty() || first.owned.len() + second.owned.len() != 2 {
            first.idle().await;
            second.idle().await;
        }
    };
    must_end(sharing, "sharing").await;
    // The offset of the member's own partition counts, the other offset does not.
    first.reader.done(&read).expect("the log is there");
    first.reader.close().await;
    second.reader.close().await;
    let mut third = Member::of(bench, GROUP, &topic).await;
    let again = third.take(1).await;
    assert!(
        second
            .owned
            .iter()
            .any(|held| held.partition == again[0].partition)
    );
    third.reader.close().await;
}
