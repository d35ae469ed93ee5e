//! Tests that a broker that is killed or stopped costs time and nothing else.

use crate::{Bench, numbers, take, texts};
use saga_messaging::log::{LogError, LogReader, LogWriter};
use saga_test_support::environment::{Server, TestEnv};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn records_survive_a_broker_that_is_killed() {
    let env = TestEnv::exclusive().await;
    let bench = Bench::on(&env, "killed", 1).await;
    bench.publish(0..100, 1).await;
    let mut reader = bench.reader();
    let before = take(&mut reader, 50).await;
    reader.done(&before).unwrap();

    env.kill(Server::Kafka).await;
    let publishing = async {
        // The task publishes like a consumer: until the log has acknowledged the records.
        let records: Vec<_> = (100..150)
            .map(|number| bench.record(Some(0), &number.to_string()))
            .collect();
        loop {
            match bench.writer.publish(&records).await {
                Ok(_) => return,
                Err(LogError::Unavailable(_)) => {}
                Err(refused @ (LogError::Refused(_) | LogError::TooLarge(_))) => {
                    panic!("{refused:?}")
                }
            }
        }
    };
    tokio::join!(publishing, env.start(Server::Kafka));

    let mut after = Vec::new();
    while after.last().map(String::as_str) != Some("149") {
        after.extend(texts(&take(&mut reader, 1).await));
    }
    // Records may be read twice, because the reader may have been assigned its partition again; none may be missing.
    after.sort_by_key(|text| text.parse::<i32>().unwrap());
    after.dedup();
    after.retain(|text| text.parse::<i32>().unwrap() >= 50);
    assert_eq!(after, numbers(50..150));

    // Without a broker the reader cannot leave its group, but the process must stop.
    env.kill(Server::Kafka).await;
    let begun = Instant::now();
    reader.close().await;
    assert!(
        begun.elapsed() < Duration::from_secs(7),
        "{:?}",
        begun.elapsed()
    );
}
