//! Tests that topics are created and checked, and that a missing topic is named.

use crate::{Bench, SOON, observe};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
};
use saga_messaging::{
    kafka::{
        KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions, TopicProblem, TopicRequirement,
        TopicSpec, admin::TopicCheckError, check_topics, ensure_topics, health,
    },
    log::{LogError, LogReader, LogWriter},
};
use saga_test_support::{environment::TestEnv, logs};
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

/// Returns the checks' problems about `retention.bytes`.
async fn size_problems(config: &KafkaConfig, requirement: TopicRequirement) -> Vec<String> {
    let Err(TopicCheckError::Problems(problems)) = check_topics(config, &[requirement]).await
    else {
        return Vec::new();
    };
    let text = problems.iter().map(ToString::to_string);
    text.filter(|text| text.contains("retention.bytes"))
        .collect()
}

/// The servers are the test's own, because the default is one of all topics.
#[tokio::test]
async fn a_limit_by_size_is_refused_in_production_whether_it_is_the_topics_or_the_brokers() {
    observe();
    let env = TestEnv::exclusive().await;
    let config = KafkaConfig::plaintext(env.brokers());
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", env.brokers())
        .create()
        .unwrap();
    let topic = |name| NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let own = topic("own-limit").set("retention.bytes", "1000000");
    let options = AdminOptions::new();
    let created = admin
        .create_topics(&[own, topic("no-limit")], &options)
        .await;
    assert!(created.unwrap().iter().all(Result::is_ok));
    let kept = Duration::from_mins(1);
    let demanding = |name: &str| TopicRequirement {
        production: true,
        ..TopicRequirement::new(name, kept)
    };
    let allowing = |name: &str| TopicRequirement {
        size_limited: true,
        ..demanding(name)
    };
    let refused = size_problems(&config, demanding("own-limit")).await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("topic 'own-limit' has retention.bytes = 1000000"));
    assert!(
        size_problems(&config, allowing("own-limit"))
            .await
            .is_empty()
    );
    let warning = |name| logs::line_with(&["WARN", "limited by size", name]);
    assert!(
        warning("own-limit").is_some(),
        "what is allowed is warned of"
    );

    assert!(
        size_problems(&config, demanding("no-limit"))
            .await
            .is_empty()
    );
    assert_eq!(warning("no-limit"), None);
    let limit =
        AlterConfig::new(ResourceSpecifier::Broker(1)).set("log.retention.bytes", "2000000");
    let altered = admin.alter_configs([&limit], &options).await.unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    saga_test_support::environment::until("the default is everybody's", SOON, async || {
        let refused = size_problems(&config, demanding("no-limit")).await;
        refused
            .iter()
            .any(|text| text.contains("retention.bytes = 2000000"))
    })
    .await;
    // Outside production a limit is only warned of.
    check_topics(&config, &[TopicRequirement::new("no-limit", kept)])
        .await
        .unwrap();
    assert!(warning("no-limit").is_some());
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
    // The port was free, so no server listens on it.
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
