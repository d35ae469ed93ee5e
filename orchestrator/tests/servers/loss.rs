//! Inputs that retention removed before they were consumed.

use crate::system::{PATIENCE, System};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use saga_core::message::{Command, Outcome, header};
use saga_messaging::kafka::{KafkaConfig, TopicReader};
use saga_test_support::environment::until;

fn yes(_command: &Command) -> Outcome {
    Outcome::Success
}

/// Deletes all records in `saga.inputs`, as a retention shorter than the outage would.
async fn forget_inputs(brokers: &str) {
    let scan = TopicReader::connect(&KafkaConfig::plaintext(brokers)).unwrap();
    let mut gone = TopicPartitionList::new();
    for (partition, window) in scan.windows("saga.inputs").await.unwrap() {
        gone.add_partition_offset("saga.inputs", partition, Offset::Offset(window.end))
            .unwrap();
    }
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    admin
        .delete_records(&gone, &AdminOptions::new())
        .await
        .unwrap();
}

/// Returns the message ids of a saga's commands in a topic, in order.
async fn sent(brokers: &str, topic: &str, saga: &str) -> Vec<String> {
    let scan = TopicReader::connect(&KafkaConfig::plaintext(brokers)).unwrap();
    let mut ids = Vec::new();
    for (partition, window) in scan.windows(topic).await.unwrap() {
        let looked = scan
            .look(topic, partition, window.start, 1_000)
            .await
            .unwrap();
        let records = looked.records.iter();
        ids.extend(
            records
                .filter(|record| record.key.as_deref() == Some(saga.as_bytes()))
                .map(|record| record.required(header::CE_ID).unwrap().to_owned()),
        );
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_retention_removed_is_asked_for_again_and_no_attempt_is_spent() {
    let mut system = System::start().await;
    let brokers = system.brokers();
    let saga = system.start_parcel("lost").await;
    system
        .saga_until(&saga, "the first command is sent", |saga| {
            saga["steps"][0]["attempts"][0]["attempt"] == 1
        })
        .await;
    system.stop_orchestrator().await;

    // The participant answers while no orchestrator runs, and its answer is deleted before one consumes it.
    let packer = system.participant("packer", yes);
    let inputs = TopicReader::connect(&KafkaConfig::plaintext(&brokers)).unwrap();
    let ends = async || -> i64 {
        let windows = inputs.windows("saga.inputs").await.unwrap();
        windows.values().map(|window| window.end).sum()
    };
    let before = ends().await;
    until("the answer stands in the log", PATIENCE, || async {
        (ends().await > before).then_some(()).ok_or("not yet")
    })
    .await;
    forget_inputs(&brokers).await;

    system.start_orchestrator().await;
    let sender = system.participant("sender", yes);
    let ended = system.saga_is(&saga, "completed").await;
    let attempts = ended["steps"][0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{ended:#}");
    let first = format!("{saga}/pack/forward/1");
    let sent = sent(&brokers, "packer.commands", &saga).await;
    assert_eq!(sent, [first.clone(), first]);
    let metrics = system.metrics().await;
    let alarm = metrics
        .lines()
        .find(|line| line.starts_with("saga_records_lost_total") && line.contains("saga.inputs"));
    assert!(alarm.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}
