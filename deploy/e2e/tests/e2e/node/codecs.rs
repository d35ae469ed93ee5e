//! The Node participant reads records with any compression codec that a topic uses, and exits with the reason if its
//! consumer ends.

use super::participant::{NodeParticipant, directory};
use crate::e2e;
use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use saga_core::{
    ids::SagaId,
    message::{Direction, Outcome},
};
use saga_harness::system::PATIENCE;
use saga_service::clock;
use saga_test_support::{
    environment::{TestEnv, until},
    participant::{Conversation, command},
};
use serde_json::json;
use std::{future::ready, time::Duration};

const CODECS: [&str; 5] = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
const POLL: Duration = Duration::from_millis(100);

/// Creates a topic that the broker compresses with `codec`, and its dead-letter topic.
async fn topic(env: &TestEnv, codec: &str) -> Result<String> {
    let name = env.unique(codec);
    let letters = saga_contracts::topic::dead_letters_of(&name);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", env.brokers())
        .create()?;
    let compressed =
        NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("compression.type", codec);
    let plain = NewTopic::new(&letters, 1, TopicReplication::Fixed(1));
    for made in admin
        .create_topics([&compressed, &plain], &AdminOptions::new())
        .await?
    {
        made.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
    }
    Ok(name)
}

async fn on(env: &TestEnv, topic: &str) -> Result<NodeParticipant> {
    let database = env.create_database("payment_node").await;
    let node = NodeParticipant::new(&env.brokers(), &database)?;
    Ok(node
        .with("COMMAND_TOPIC", topic)
        .with("CONSUMER_GROUP", topic))
}

e2e! {
async fn a_participant_in_node_reads_records_of_every_codec() {
    let (system, _guard) = crate::shared().await;
    for codec in CODECS {
        let topic = topic(system.env, codec).await?;
        let mut node = on(system.env, &topic).await?;
        node.start()?;
        let answered = charged(system.env, &topic).await;
        let stopped = node.stop();
        answered.with_context(|| format!("{codec}\n{}", node.tail()))?;
        stopped?;
    }
    Ok(())
}
}

async fn charged(env: &TestEnv, topic: &str) -> Result<()> {
    let mut log = Conversation::open(&env.brokers(), topic).await?;
    let id = clock::new_id();
    let payload = json!({"orderId": id, "customerId": id, "amountMinor": 500, "currency": "EUR"});
    let charge = command(SagaId(id), "payment.charge", Direction::Forward, payload);
    ensure!(log.ask(&charge).await?.outcome == Outcome::Success);
    Ok(())
}

e2e! {
/// The participant's consumer ends at once if the other members of its group use a different assignment strategy.
async fn a_participant_in_node_ends_with_its_consumer() {
    let (system, _guard) = crate::shared().await;
    let topic = topic(system.env, "uncompressed").await?;
    let stranger: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", system.env.brokers())
        .set("group.id", &topic)
        .set("partition.assignment.strategy", "range")
        .create()?;
    stranger.subscribe(&[&topic])?;
    until("the stranger is in the group", PATIENCE, async || {
        drop(stranger.poll(POLL));
        ensure!(stranger.assignment()?.count() > 0, "it has no partition");
        anyhow::Ok(())
    })
    .await;
    let mut node = on(system.env, &topic).await?;
    node.start()?;
    let status = until("it ends", PATIENCE, || {
        drop(stranger.poll(POLL));
        ready(node.exited())
    })
    .await;
    let expected = format!("the consumer of topic {topic} in group {topic} ended: ");
    ensure!(status.code() == Some(1) && node.tail().contains(&expected), "{status}\n{}", node.tail());
    Ok(())
}
}

/// A module that makes the reader of snappy fail, as a record would that no reader can decompress. Brokers refuse such
/// records, so none can be sent.
const BREAK_SNAPPY: &str = "require('DIRECTORY/node_modules/snappyjs').uncompress = () => { throw new Error('cut off'); };";

e2e! {
async fn a_participant_in_node_that_cannot_decompress_ends_and_names_topic_and_codec() {
    let (system, _guard) = crate::shared().await;
    let topic = topic(system.env, "snappy").await?;
    let node = on(system.env, &topic).await?;
    let module = std::env::temp_dir().join(format!("{topic}.cjs"));
    let directory = directory().canonicalize()?;
    std::fs::write(&module, BREAK_SNAPPY.replace("DIRECTORY", &directory.to_string_lossy()))?;
    let mut node = node.with("NODE_OPTIONS", &format!("--require {}", module.display()));
    node.start()?;
    let log = Conversation::open(&system.env.brokers(), &topic).await?;
    let id = clock::new_id();
    let charge = command(SagaId(id), "payment.charge", Direction::Forward, json!({"orderId": id}));
    log.send(&[charge]).await?;
    let status = until("it ends", PATIENCE, || ready(node.exited())).await;
    let expected = [
        format!("the consumer of topic {topic} in group {topic} ended: "),
        "records compressed with snappy cannot be read: cut off".to_owned(),
    ];
    let tail = node.tail();
    let line = tail.lines().find(|line| expected.iter().all(|part| line.contains(part)));
    ensure!(status.code() == Some(1) && line.is_some(), "{status}\n{tail}");
    std::fs::remove_file(&module)?;
    Ok(())
}
}
