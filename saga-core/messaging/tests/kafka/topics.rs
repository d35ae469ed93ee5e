//! Topics are created and checked; one that is missing is named.

use crate::{Bench, SOON};
use saga_messaging::{
    kafka::{
        KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions, TopicProblem, TopicRequirement,
        TopicSpec, admin::TopicCheckError, check_topics, ensure_topics, health,
    },
    log::{LogError, LogReader, LogWriter},
};
use saga_testkit::environment::TestEnv;
use std::time::Duration;
use tokio::time::timeout;

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn topics_are_created_once_and_approved() {
    let env = TestEnv::shared().await;
    let config = KafkaConfig::plaintext(env.brokers());
    let name = env.unique("made");
    let specs = [
        TopicSpec::new(&name, 3).retention_ms(DAY.as_millis() as i64),
        TopicSpec::dead_letters_of(&name),
    ];
    let twice = [specs.as_slice(), specs.as_slice()].concat();
    ensure_topics(&config, &twice).await.unwrap();
    ensure_topics(&config, &specs).await.unwrap();
    let writer = KafkaWriter::connect(&config).unwrap();
    assert_eq!(writer.partition_count(&name).await.unwrap(), 3);

    let fits = TopicRequirement {
        partitions: 3,
        ..TopicRequirement::new(&name, DAY)
    };
    let dead_letters = TopicRequirement::new(format!("{name}.dlq"), DAY);
    check_topics(&config, &[fits.clone(), dead_letters])
        .await
        .unwrap();

    let missing = TopicRequirement::new("not.there", DAY);
    let demanding = TopicRequirement {
        partitions: 4,
        retention: 2 * DAY,
        production: true,
        ..fits
    };
    let checked = check_topics(&config, &[missing, demanding]).await;
    let Err(TopicCheckError::Problems(problems)) = checked else {
        panic!("{checked:?}");
    };
    let missing = |problem: &TopicProblem| matches!(problem, TopicProblem::Missing { .. });
    assert!(problems.iter().any(missing));
    let text: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    for part in [
        "'not.there' does not exist",
        "3 partitions",
        "1 replicas",
        "retention.ms",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_dead_letter_of_the_largest_record_fits() {
    let env = TestEnv::shared().await;
    let bench = Bench::new("letters", 1).await;
    ensure_topics(&bench.config, &[TopicSpec::dead_letters_of(&bench.topic)])
        .await
        .unwrap();
    let mut record = bench.record(None, "large");
    record.payload = vec![b'x'; 1_048_000];
    bench.writer.publish(&[record]).await.unwrap();
    let mut reader = bench.reader();
    let read = crate::take(&mut reader, 1).await;
    let detail = "long ".repeat(10_000);
    let letter = saga_messaging::dead_letter::dead_letter(&read[0], "bad_payload", &detail);
    bench.writer.publish(&[letter]).await.unwrap();
    reader.close().await;
    health(&KafkaConfig::plaintext(env.brokers()))
        .await
        .unwrap();
}

fn refusal(error: LogError) -> String {
    match error {
        LogError::Refused(why) | LogError::TooLarge(why) => why.to_string(),
        LogError::Unavailable(why) => panic!("tried again for ever: {why}"),
    }
}

#[tokio::test]
async fn a_missing_topic_is_named_to_readers_and_writers() {
    let bench = Bench::new("present", 1).await;
    let mut reader = KafkaReader::subscribe(
        &bench.config,
        &bench.group,
        &["no.such.topic"],
        ReaderOptions::default(),
    )
    .unwrap();
    let why = timeout(SOON, reader.poll(1)).await.unwrap().unwrap_err();
    let why = refusal(why);
    assert!(
        why.contains("'no.such.topic' does not exist: create it"),
        "{why}"
    );
    reader.close().await;

    let mut record = bench.record(None, "x");
    "no.such.topic".clone_into(&mut record.topic);
    let why = timeout(SOON, bench.writer.publish(&[record]))
        .await
        .unwrap()
        .unwrap_err();
    assert!(refusal(why).contains("'no.such.topic'"));
    let why = bench
        .writer
        .partition_count("no.such.topic")
        .await
        .unwrap_err();
    assert!(refusal(why).contains("'no.such.topic'"));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_not_healthy() {
    // A port of our own on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = KafkaConfig::plaintext(format!("127.0.0.1:{port}"));
    assert!(matches!(
        health(&config).await,
        Err(LogError::Unavailable(_))
    ));
}
