//! Tests a client that exceeds its quota: the throttling is reported, publishing waits, and nothing is lost.

use crate::{Bench, SOON, measured, observe};
use saga_core::message::OutgoingRecord;
use saga_messaging::{kafka::KafkaWriter, log::LogWriter};
use saga_test_support::{environment::until, logs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Kafka measures over eleven seconds, so more than eleven times this many bytes exceed the quota.
const BYTES_A_SECOND: f64 = 50_000.0;
const PUBLISHES: usize = 16;
/// Number of records in a publish, with a kilobyte each.
const RECORDS: usize = 50;

fn string(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// Sets `producer_byte_rate` of a client id. The client library has no call for that: this is the request
/// `AlterClientQuotas` (49) in its version 0.
async fn limit(brokers: &str, client: &str) {
    let one = 1_i32.to_be_bytes().to_vec();
    let entity = [one.clone(), string("client-id"), string(client)].concat();
    let change = [
        one.clone(),
        string("producer_byte_rate"),
        BYTES_A_SECOND.to_be_bytes().to_vec(),
        vec![0],
    ]
    .concat();
    let header = [vec![0, 49, 0, 0, 0, 0, 0, 7], string("test")].concat();
    let request = [header, one, entity, change, vec![0]].concat();
    let mut stream = TcpStream::connect(brokers).await.unwrap();
    let length = i32::try_from(request.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let length = stream.read_i32().await.unwrap();
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut answer).await.unwrap();
    // The answer has the correlation id, the throttle time, one entry, and its error code.
    assert_eq!(
        answer[..14],
        [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        "{answer:?}"
    );
}

/// Returns the longest delay in the metrics.
fn throttled_seconds(client: &str) -> Option<f64> {
    measured("saga_log_throttled_seconds", &[&format!("\"{client}#")])
}

#[tokio::test]
async fn a_producer_over_its_quota_waits_and_the_metric_and_the_log_say_so() {
    observe();
    let mut bench = Bench::new("throttled", 1).await;
    let client = bench.topic.clone();
    limit(&bench.config.brokers, &client).await;
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
