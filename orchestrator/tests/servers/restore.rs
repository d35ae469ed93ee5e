//! Database and log that no longer match: a backup is restored, topics are recreated, Kafka is replaced by an empty
//! one.

use crate::system::{PATIENCE, System};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};
use saga_core::message::{Command, Outcome};
use saga_messaging::kafka::{KafkaConfig, TopicReader};
use saga_test_support::environment::until;
use serde_json::Value;

fn yes(_command: &Command) -> Outcome {
    Outcome::Success
}

/// Returns the number of attempts of each step.
fn attempts(saga: &Value) -> Vec<usize> {
    let steps = saga["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|step| step["attempts"].as_array().unwrap().len())
        .collect()
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap()
}

/// Returns the number of records in `saga.inputs`.
async fn inputs(system: &System) -> i64 {
    let scan = TopicReader::connect(&KafkaConfig::plaintext(system.brokers())).unwrap();
    let windows = scan.windows("saga.inputs").await.unwrap();
    windows.values().map(|window| window.end).sum()
}

async fn is_at_pack(system: &System, saga: &str) {
    system
        .saga_until(saga, "the first command is sent", |saga| {
            saga["steps"][0]["attempts"][0]["attempt"] == 1
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_on_a_backup_processes_inputs_after_the_backup_again() {
    let mut system = System::start().await;
    let packer = system.participant("packer", yes);
    let older = system.start_parcel("older").await;
    system
        .saga_until(&older, "it is sent", |saga| {
            saga["steps"][1]["attempts"][0]["attempt"] == 1
        })
        .await;
    system.stop_orchestrator().await;
    let backup = system.copy_database().await;

    system.start_orchestrator().await;
    let sender = system.participant("sender", yes);
    // After the backup, one saga ends, one begins and ends, and one begins.
    system.saga_is(&older, "completed").await;
    let whole = system.start_parcel("whole").await;
    system.saga_is(&whole, "completed").await;
    sender.stop().await;
    // Offsets that are committed after a tick show that the backup is older.
    system.ticks_since(&backup).await;
    let begun = system.start_parcel("begun").await;
    system
        .saga_until(&begun, "it is sent", |saga| {
            saga["steps"][1]["attempts"][0]["attempt"] == 1
        })
        .await;
    system.stop_orchestrator().await;

    system.use_database(backup);
    system.start_orchestrator().await;
    let sender = system.participant("sender", yes);
    for saga in [&older, &whole, &begun] {
        let ended = system.saga_is(saga, "completed").await;
        assert_eq!(attempts(&ended), [1, 1], "{ended:#}");
    }
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreated_inputs_end_the_running_orchestrator_and_the_next_one_sends_its_commands_again() {
    let mut system = System::start().await;
    let saga = system.start_parcel("anew").await;
    is_at_pack(&system, &saga).await;
    system.recreate_topics(&["saga.inputs"]).await;
    let reason = system.ended_by_itself().await;
    assert!(
        reason.contains("'saga.inputs' was deleted and recreated"),
        "{reason}"
    );
    // The reply goes into the new topic, at an offset that the former topic also had. Then that topic is deleted, too.
    let before = inputs(&system).await;
    let packer = system.participant("packer", yes);
    until("the answer stands in the log", PATIENCE, async || {
        inputs(&system).await > before
    })
    .await;
    system.recreate_topics(&["saga.inputs"]).await;

    system.start_orchestrator().await;
    let sender = system.participant("sender", yes);
    let ended = system.saga_is(&saga, "completed").await;
    assert_eq!(attempts(&ended), [1, 1], "{ended:#}");
    let metrics = system.metrics().await;
    let told = metrics.lines().any(|line| {
        line.starts_with("saga_records_lost_total")
            && line.contains("topic=\"saga.inputs\"")
            && line.contains("partition=")
    });
    assert!(told, "{metrics}");
    let next = system.start_parcel("next").await;
    system.saga_is(&next, "completed").await;
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_in_flight_are_sent_again_to_an_emptied_kafka() {
    let mut system = System::start().await;
    let packer = system.participant("packer", yes);
    let before = system.start_parcel("to-the-sender").await;
    system
        .saga_until(&before, "it is sent", |saga| {
            saga["steps"][1]["attempts"][0]["attempt"] == 1
        })
        .await;
    packer.stop().await;
    let first = system.start_parcel("to-the-packer").await;
    is_at_pack(&system, &first).await;
    system.stop_orchestrator().await;
    let topics = [
        "saga.inputs",
        "saga.events",
        "packer.commands",
        "sender.commands",
    ];
    system.recreate_topics(&topics).await;
    let admin = admin(&system.brokers());
    until("the groups are gone", PATIENCE, async || {
        let groups = ["orchestrator", "packer", "sender"];
        let deleted = admin.delete_groups(&groups, &AdminOptions::new()).await;
        let gone = |code: &RDKafkaErrorCode| *code == RDKafkaErrorCode::GroupIdNotFound;
        let left: Vec<_> = deleted
            .unwrap()
            .into_iter()
            .filter_map(Result::err)
            .filter(|(_, code)| !gone(code))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;

    system.start_orchestrator().await;
    let (packer, sender) = (
        system.participant("packer", yes),
        system.participant("sender", yes),
    );
    for saga in [&before, &first] {
        let ended = system.saga_is(saga, "completed").await;
        assert_eq!(attempts(&ended), [1, 1], "{ended:#}");
    }
    packer.stop().await;
    sender.stop().await;
    system.stop_orchestrator().await;
}
