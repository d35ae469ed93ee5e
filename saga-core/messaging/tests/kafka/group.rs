//! Tests that no record is skipped, whatever happens to a group's members.

use crate::{Bench, SOON, join, next_records, numbers, take, text, texts};
use metrics::{Key, KeyName, Metadata, SharedString, Unit};
use saga_messaging::{
    kafka::{GroupOffsets, KafkaReader, ReaderOptions},
    log::{LogReader, PauseEnded, PollResult},
};
use saga_test_support::environment::until;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn unfinished_records_are_redelivered() {
    let bench = Bench::new("redelivery", 1).await;
    bench.publish(0..20, 1).await;

    let mut first = bench.reader();
    let records = take(&mut first, 15).await;
    first.done(&records[..10]).unwrap();
    // The drop is like a kill: the reader does not learn that the remaining records are done.
    drop(first);

    let mut second = bench.reader();
    let records = take(&mut second, 10).await;
    assert_eq!(texts(&records), numbers(10..20));
    second.done(&records).unwrap();
    second.close().await;

    bench.publish(20..21, 1).await;
    let mut third = bench.reader();
    assert_eq!(texts(&take(&mut third, 1).await), numbers(20..21));
    third.close().await;
}

#[tokio::test]
async fn a_groups_committed_offsets_are_seen_from_outside() {
    let bench = Bench::new("offsets", 2).await;
    bench.publish(0..10, 2).await;
    let offsets = GroupOffsets::connect(&bench.config, &bench.group).unwrap();
    // While a broker's group coordinator is starting, it returns an error: the offsets are unknown.
    let none = until("the coordinator answers", SOON, async || {
        offsets.committed(&bench.topic).await
    })
    .await;
    assert_eq!(none, BTreeMap::from([(0, 0), (1, 0)]));
    assert_eq!(offsets.watermarks(&bench.topic, 1).await.unwrap(), (0, 5));

    let mut reader = bench.reader();
    let records = take(&mut reader, 10).await;
    let two_of_each: Vec<_> = records
        .into_iter()
        .filter(|record| record.offset < 2)
        .collect();
    reader.done(&two_of_each).unwrap();
    // The client commits by itself while the reader continues.
    until("the offsets are committed", SOON, async || {
        let committed = offsets.committed(&bench.topic).await;
        committed.is_ok_and(|offsets| offsets == BTreeMap::from([(0, 2), (1, 2)]))
    })
    .await;
    reader.close().await;
    assert!(offsets.committed("no.such.topic").await.is_err());
}

#[tokio::test]
async fn holding_loses_nothing_and_repeats_nothing() {
    let bench = Bench::new("hold", 2).await;
    // These are more records than are buffered before partitions are paused.
    bench.publish(0..3_000, 2).await;
    let mut reader = bench.reader();
    let mut read = Vec::new();
    let mut published = 3_000;
    while read.len() < 3_600 {
        let records = next_records(&mut reader, 37).await;
        read.extend(
            records
                .iter()
                .map(|record| (record.partition, record.offset)),
        );
        if published < 3_600 {
            bench.publish(published..published + 50, 2).await;
            published += 50;
        }
        if read.len() % 2 == 0 {
            let held = reader.hold(Duration::from_millis(60)).await;
            assert_eq!(held, PauseEnded::Elapsed);
        }
        reader.done(&records).unwrap();
    }
    for partition in 0..2 {
        let offsets = read
            .iter()
            .filter(|place| place.0 == partition)
            .map(|place| place.1);
        assert_eq!(offsets.collect::<Vec<_>>(), (0..1_800).collect::<Vec<_>>());
    }
    reader.close().await;
}

#[tokio::test]
async fn a_member_that_holds_stays_in_its_group() {
    let bench = Bench::new("stay", 1).await;
    bench.publish(0..2, 1).await;
    let mut reader = bench.reader();
    let first = take(&mut reader, 1).await;
    // The pause is longer than the session timeout.
    assert_eq!(
        reader.hold(Duration::from_secs(8)).await,
        PauseEnded::Elapsed
    );
    reader.done(&first).unwrap();
    assert_eq!(texts(&take(&mut reader, 1).await), ["1"]);
    reader.close().await;
}

#[tokio::test]
async fn a_pause_ends_when_partitions_are_revoked() {
    let bench = Bench::new("taken", 2).await;
    bench.publish(0..2, 2).await;
    let mut first = bench.reader();
    let records = take(&mut first, 2).await;
    let joining = tokio::spawn({
        let mut second = bench.reader();
        async move {
            let records = take(&mut second, 1).await;
            second.close().await;
            records
        }
    });
    assert_eq!(first.hold(SOON).await, PauseEnded::Revoked);
    let PollResult::Revoked(lost) = timeout(SOON, first.poll(10)).await.unwrap().unwrap() else {
        panic!("the loss is reported first");
    };
    assert_eq!(lost.len(), 1);
    // Marking all records as done must not commit those of a partition that belongs to another member.
    first.done(&records).unwrap();
    // The other partition stays assigned and has no new records; further polls let the rebalance end.
    let again = tokio::select! {
        polled = first.poll(10) => panic!("{polled:?}"),
        again = joining => again.unwrap(),
    };
    assert_eq!(again[0].partition, lost[0].partition);
    first.close().await;
}

type Seen = Arc<Mutex<Vec<(i32, i64, String)>>>;

/// Reads like a consumer until `stop`.
fn member(mut reader: KafkaReader, seen: &Seen, stop: CancellationToken) -> JoinHandle<()> {
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        loop {
            let polled = tokio::select! {
                () = stop.cancelled() => break,
                polled = reader.poll(25) => polled.unwrap(),
            };
            if let PollResult::Records(records) = polled {
                for record in &records {
                    let line = (record.partition, record.offset, text(record));
                    seen.lock().unwrap().push(line);
                }
                reader.done(&records).unwrap();
            }
        }
        reader.close().await;
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_join_and_leave_miss_no_record() {
    let bench = Bench::new("rebalance", 4).await;
    let seen = Seen::default();
    let mut members = Vec::new();
    for wave in 0..4 {
        let stop = CancellationToken::new();
        members.push((member(bench.reader(), &seen, stop.clone()), stop));
        bench.publish(wave * 500..(wave + 1) * 500, 4).await;
        if wave == 2 {
            // The oldest member leaves while the others are busy.
            let (left, stop) = members.remove(0);
            stop.cancel();
            left.await.unwrap();
        }
    }
    until("every record is read", SOON, async || {
        let seen = seen.lock().unwrap();
        let texts: BTreeSet<_> = seen.iter().map(|line| line.2.clone()).collect();
        texts.len() == 2_000
    })
    .await;
    for (member, stop) in members {
        stop.cancel();
        member.await.unwrap();
    }
    let offsets = GroupOffsets::connect(&bench.config, &bench.group).unwrap();
    let committed = offsets.committed(&bench.topic).await.unwrap();
    assert_eq!(
        committed,
        (0..4).map(|partition| (partition, 500)).collect()
    );
    // Members that leave in order cause no redelivery.
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2_000);
}

#[tokio::test]
async fn a_static_member_rejoins_without_a_rebalance() {
    let bench = Bench::new("static", 2).await;
    let named = |name: &str| {
        KafkaReader::subscribe(
            &bench.config,
            &bench.group,
            &[&bench.topic],
            ReaderOptions {
                group_instance_id: Some(name.to_owned()),
                ..ReaderOptions::default()
            },
        )
        .unwrap()
    };
    let mut first = named("a");
    join(&mut first).await;
    first.close().await;
    bench.publish(0..2, 2).await;
    let mut again = named("a");
    let begun = std::time::Instant::now();
    take(&mut again, 2).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    again.close().await;
}

#[tokio::test]
async fn a_wedged_member_commits_nothing_over_its_successor() {
    let bench = Bench::new("wedged", 1).await;
    bench.publish(0..10, 1).await;
    let mut hasty = bench.config.clone();
    // The interval is a little longer than the session timeout, which is its minimum.
    hasty
        .extra
        .insert("max.poll.interval.ms".to_owned(), "6500".to_owned());
    let options = ReaderOptions::default();
    let mut wedged =
        KafkaReader::subscribe(&hasty, &bench.group, &[&bench.topic], options).unwrap();
    let all = take(&mut wedged, 10).await;

    // The first member does not poll while its successor waits for the partition, gets it, and handles some records.
    let mut successor = bench.reader();
    let again = take(&mut successor, 3).await;
    assert_eq!(texts(&again), numbers(0..3));
    successor.done(&again).unwrap();
    wedged.done(&all).unwrap();
    wedged.close().await;
    successor.close().await;

    let offsets = GroupOffsets::connect(&bench.config, &bench.group).unwrap();
    let committed = until("the coordinator answers", SOON, async || {
        offsets.committed(&bench.topic).await
    })
    .await;
    assert_eq!(committed, BTreeMap::from([(0, 3)]));
}

/// Stores the values of gauges.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<BTreeMap<String, f64>>>);

struct OneGauge(Gauges, String);

impl metrics::GaugeFn for OneGauge {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl metrics::Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> metrics::Counter {
        metrics::Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::from_arc(Arc::new(OneGauge(self.clone(), key.to_string())))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[tokio::test]
async fn lag_is_measured_by_topic_and_group() {
    let bench = Bench::new("lag", 1).await;
    let gauges = Gauges::default();
    let _recording = metrics::set_default_local_recorder(&gauges);
    bench.publish(0..10, 1).await;
    let mut reader = bench.reader();
    let records = take(&mut reader, 10).await;
    reader.done(&records[..4]).unwrap();
    let begun = std::time::Instant::now();
    loop {
        // Statistics arrive with polling.
        drop(timeout(Duration::from_millis(100), reader.poll(1)).await);
        let gauges = gauges.0.lock().unwrap();
        let lag = gauges.iter().find(|(key, _)| {
            key.contains("saga_consumer_lag")
                && key.contains(&bench.topic)
                && key.contains(&bench.group)
        });
        if lag.is_some_and(|(_, records)| (records - 6.0).abs() < 0.5) {
            break;
        }
        assert!(begun.elapsed() < SOON, "{gauges:?}");
    }
    reader.close().await;
}
