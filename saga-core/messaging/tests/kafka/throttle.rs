//! Tests a client that exceeds its quota: the throttling is reported, publishing waits, and nothing is lost.

use crate::{Bench, SOON, measured, observe};
use saga_core::message::OutgoingRecord;
use saga_messaging::{kafka::KafkaWriter, log::LogWriter};
use saga_test_support::{environment::until, logs, quota::limit_producer};

/// Kafka measures over eleven seconds, so more than eleven times this many bytes exceed the quota.
const BYTES_A_SECOND: f64 = 50_000.0;
const PUBLISHES: usize = 16;
/// Number of records in a publish, with a kilobyte each.
const RECORDS: usize = 50;

/// Returns the longest delay in the metrics.
fn throttled_seconds(client: &str) -> Option<f64> {
    measured("saga_log_throttled_seconds", &[&format!("\"{client}#")])
}

#[tokio::test]
async fn a_producer_over_its_quota_waits_and_the_metric_and_the_log_say_so() {
    observe();
    let mut bench = Bench::new("throttled", 1).await;
    let client = bench.topic.clone();
    limit_producer(&bench.config.brokers, &client, Some(BYTES_A_SECOND))
        .await
        .unwrap();
    bench
        .config
        .extra
        .insert("client.id".to_owned(), client.clone());
    bench.writer = KafkaWriter::connect(&bench.config).unwrap();
    let records = vec![
        OutgoingRecord {
            payload: vec![b'x'; 1_000],
            ..bench.record(Some(0), "key")
        };
        RECORDS
    ];
    let mut last = -1;
    for _ in 0..PUBLISHES {
        let delivered = bench
            .writer
            .publish(&records)
            .await
            .expect("late is not lost");
        last = delivered.last().map_or(last, |at| at.offset);
    }
    // Each record was written once: a late acknowledgment did not cause a resend.
    assert_eq!(last + 1, (PUBLISHES * RECORDS) as i64);
    until("the throttling is told", SOON, || async {
        throttled_seconds(&client).is_some_and(|seconds| seconds > 0.0)
    })
    .await;
    let told = format!("throttled by the broker: the producer with the client id '{client}'");
    until("the log has it", SOON, || async {
        logs::line_with(&["WARN", &told, "over its quota", "longest_ms="]).is_some()
    })
    .await;
}
