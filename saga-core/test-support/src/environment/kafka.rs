//! Kafka for tests.

use super::{
    backend::{Backend, scratch},
    containers::Container,
    runtime::outlive,
    wait::{holds_within, until},
};
use anyhow::{Context, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use saga_core::message::topic::holds_dead_letters;
use saga_servers::{KafkaOptions, KafkaServer, free_port, kafka_answers};
use std::{sync::Arc, time::Duration};

const HEAP_MB: u32 = 384;
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Dead-letter topics must accept any letter. Services check this when they start.
const DEAD_LETTER_LIMIT_BYTES: &str = "2097152";
const METADATA_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Node {
    Local(Arc<KafkaServer>),
    Container(Arc<Container>),
}

/// A running broker.
#[derive(Debug)]
pub struct TestKafka {
    node: Node,
}

impl TestKafka {
    pub(super) async fn start(backend: Backend) -> Result<Self, String> {
        let node = match backend {
            Backend::Local => {
                let options = KafkaOptions {
                    quick_start: true,
                    heap_mb: HEAP_MB,
                    ..KafkaOptions::new(scratch("kafka"), free_port())
                };
                let server = KafkaServer::start(options).await;
                Node::Local(Arc::new(server.map_err(|error| error.to_string())?))
            }
            Backend::Containers => Node::Container(Arc::new(Container::kafka(HEAP_MB).await?)),
        };
        let server = Self { node };
        server.answers().await?;
        Ok(server)
    }

    fn port(&self) -> u16 {
        match &self.node {
            Node::Local(server) => server.port(),
            Node::Container(container) => container.port(),
        }
    }

    /// Returns `host:port`, for `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    async fn answers(&self) -> Result<(), String> {
        holds_within("Kafka answers", READY_LIMIT, || kafka_answers(self.port())).await
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    /// Creates the topics that do not exist, and waits until each partition has a leader.
    pub async fn create_topics(&self, topics: &[(&str, i32)]) {
        let config = self.config();
        let topics: Vec<(String, i32)> = topics
            .iter()
            .map(|(name, partitions)| ((*name).to_owned(), *partitions))
            .collect();
        // The client's threads must not end with the runtime of the test that called first.
        outlive(async move {
            let admin: AdminClient<DefaultClientContext> =
                config.create().expect("the client's settings are right");
            make(&admin, &topics).await;
            let admin = Arc::new(admin);
            for (name, partitions) in topics {
                until("the topic has leaders", READY_LIMIT, || {
                    led(Arc::clone(&admin), name.clone(), partitions)
                })
                .await;
            }
        })
        .await;
    }

    /// Deletes the topics, and waits until no broker knows them.
    pub async fn delete_topics(&self, topics: &[&str]) {
        let config = self.config();
        let topics: Vec<String> = topics.iter().map(|name| (*name).to_owned()).collect();
        outlive(async move {
            let admin: AdminClient<DefaultClientContext> =
                config.create().expect("the client's settings are right");
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let deleted = admin.delete_topics(&names, &AdminOptions::new()).await;
            for one in deleted.expect("the broker answers") {
                one.expect("the topic is deleted");
            }
            let admin = Arc::new(admin);
            for name in topics {
                until("the topic is gone", READY_LIMIT, || {
                    gone(Arc::clone(&admin), name.clone())
                })
                .await;
            }
        })
        .await;
    }

    /// Pauses the broker: connections stay open, and it does not answer.
    pub async fn pause(&self) {
        match &self.node {
            Node::Local(server) => server.pause().await,
            Node::Container(container) => container.pause().await,
        }
    }

    pub async fn resume(&self) {
        match &self.node {
            Node::Local(server) => server.resume().await,
            Node::Container(container) => container.resume().await,
        }
    }

    pub async fn kill(&self) {
        match &self.node {
            Node::Local(server) => server.kill().await,
            Node::Container(container) => container.kill().await,
        }
    }

    pub async fn stop(&self) {
        match &self.node {
            Node::Local(server) => server.stop().await,
            Node::Container(container) => container.stop().await,
        }
    }

    /// Starts the broker again after [`kill`](Self::kill) or [`stop`](Self::stop). It is ready when this returns.
    pub async fn start_again(&self) {
        match &self.node {
            Node::Local(server) => {
                let server = Arc::clone(server);
                outlive(async move { server.start_again().await })
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            Node::Container(container) => container.start().await,
        }
        self.answers().await.unwrap_or_else(|late| panic!("{late}"));
    }
}

async fn make(admin: &AdminClient<DefaultClientContext>, topics: &[(String, i32)]) {
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(name, partitions)| {
            let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
            if holds_dead_letters(name) {
                topic.set("max.message.bytes", DEAD_LETTER_LIMIT_BYTES)
            } else {
                topic
            }
        })
        .collect();
    let made = admin
        .create_topics(&new, &AdminOptions::new())
        .await
        .expect("the broker answers");
    for result in made {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => panic!("topic {name} cannot be made: {code}"),
        }
    }
}

async fn gone(admin: Arc<AdminClient<DefaultClientContext>>, topic: String) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), METADATA_LIMIT)?;
        let seen = metadata.topics().first().context("no answer")?;
        let code = seen.error().map(RDKafkaErrorCode::from);
        ensure!(
            code == Some(RDKafkaErrorCode::UnknownTopicOrPartition),
            "it is still known: {code:?}"
        );
        Ok(())
    })
    .await?
}

async fn led(
    admin: Arc<AdminClient<DefaultClientContext>>,
    topic: String,
    partitions: i32,
) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), METADATA_LIMIT)?;
        let seen = metadata
            .topics()
            .first()
            .context("the topic is not known")?
            .partitions();
        let led = seen
            .iter()
            .filter(|partition| partition.leader() >= 0)
            .count();
        ensure!(
            led >= usize::try_from(partitions)?,
            "{led} of {partitions} have a leader"
        );
        Ok(())
    })
    .await?
}
