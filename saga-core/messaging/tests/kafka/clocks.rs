//! Tests clocks that differ, and brokers that refuse a record for its time.

use crate::{Bench, take};
use chrono::{TimeDelta, Utc};
use saga_core::ids::Timestamp;
use saga_messaging::{
    kafka::KafkaWriter,
    log::{LogError, LogWriter},
};
use saga_postgres::clock::Clock;

/// A skew beyond the default limit of the brokers.
const TWO_HOURS: TimeDelta = TimeDelta::hours(2);

#[expect(
    clippy::disallowed_methods,
    reason = "the clock that the test's own clocks differ from"
)]
fn right() -> Timestamp {
    Utc::now()
}

fn ahead() -> Timestamp {
    right() + TWO_HOURS
}

fn behind() -> Timestamp {
    right() - TWO_HOURS
}

/// Returns a writer whose machine and whose database have these times.
fn writer(
    bench: &Bench,
    machine: fn() -> Timestamp,
    database: Timestamp,
) -> (KafkaWriter, &'static Clock) {
    let clock: &Clock = Box::leak(Box::new(Clock::new(machine)));
    clock.observe(database);
    (
        KafkaWriter::connect_with(&bench.config, clock).unwrap(),
        clock,
    )
}

/// Returns the ages of the topic's records, in seconds.
async fn ages(bench: &Bench, count: usize) -> Vec<i64> {
    let records = take(&mut bench.reader(), count).await;
    let now = right().timestamp_millis();
    records
        .iter()
        .map(|record| (now - record.timestamp_ms) / 1_000)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_two_hours_ahead_sends_records_of_its_databases_time() {
    let bench = Bench::new("ahead", 1).await;
    let (writer, clock) = writer(&bench, ahead, right());
    writer.publish(&[bench.record(None, "one")]).await.unwrap();
    let ages = ages(&bench, 1).await;
    assert!((0..60).contains(&ages[0]), "{ages:?}");
    let told = clock.check().unwrap_err();
    assert!(told.contains("ahead of the database's"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_clock_two_hours_ahead_is_reported_and_the_machines_time_is_sent() {
    let bench = Bench::new("database", 1).await;
    let (writer, clock) = writer(&bench, right, ahead());
    let records = [bench.record(None, "one"), bench.record(None, "two")];
    let refused = writer.publish(&records).await.unwrap_err();
    assert!(matches!(refused, LogError::Unavailable(_)), "{refused:?}");
    let told = std::error::Error::source(&refused).unwrap().to_string();
    for part in [
        "the database's time",
        &bench.topic,
        "message.timestamp.after.max.ms",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    // A publisher tries again.
    writer.publish(&records).await.unwrap();
    let ages = ages(&bench, 2).await;
    assert!(ages.iter().all(|age| (0..60).contains(age)), "{ages:?}");
    assert_eq!(clock.check_fit(), Ok(()));
}

/// Brokers take old records, so a clock that is behind does no harm until the topic's retention.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_two_hours_behind_is_reported_and_no_record_is_refused() {
    for (machine, database, age, side) in [
        (behind as fn() -> Timestamp, right(), 0, "behind"),
        (right, behind(), TWO_HOURS.num_seconds(), "ahead of"),
    ] {
        let bench = Bench::new("behind", 1).await;
        let (writer, clock) = writer(&bench, machine, database);
        writer.publish(&[bench.record(None, "one")]).await.unwrap();
        let told = clock.check().unwrap_err();
        assert!(told.contains(&format!("{side} the database's")), "{told}");
        assert_eq!(clock.check_fit(), Ok(()));
        let ages = ages(&bench, 1).await;
        assert!((age..age + 60).contains(&ages[0]), "{ages:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_brokers_refuse_both_clocks_nothing_new_is_begun() {
    let bench = Bench::new("both", 1).await;
    let (writer, clock) = writer(&bench, ahead, ahead());
    for _ in 0..3 {
        let refused = writer
            .publish(&[bench.record(None, "one")])
            .await
            .unwrap_err();
        assert!(matches!(refused, LogError::Unavailable(_)), "{refused:?}");
    }
    let told = clock.check_fit().unwrap_err();
    assert!(told.contains("the brokers refuse"), "{told}");
    // Once the database's clock is set right, the waiting records are sent, and new work may begin again.
    clock.observe(right());
    let mut tries = 1;
    while writer.publish(&[bench.record(None, "one")]).await.is_err() {
        tries += 1;
        assert!(tries <= 2, "there are two clocks");
    }
    assert!((0..60).contains(&ages(&bench, 1).await[0]));
    assert_eq!(clock.check_fit(), Ok(()));
}
