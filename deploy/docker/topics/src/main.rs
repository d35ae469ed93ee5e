//! Creates the topics of the reference application and exits. Compose runs this program once, before the services. A
//! topic that exists is not changed. On a cluster of your own, create these topics as you create other topics there.

use anyhow::Context;
use clap::Parser;
use saga_messaging::kafka::{KafkaConfig, TopicSpec, ensure_topics};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Addresses of the brokers: host:port, separated by commas.
    #[arg(long, env = "SAGA_TOPICS_BROKERS")]
    brokers: String,
    /// Partitions of each topic except dead-letter topics: as few as the parallelism needs, since Kafka's cost grows
    /// with requests.
    #[arg(long, env = "SAGA_TOPICS_PARTITIONS", default_value_t = 2)]
    partitions: i32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let topics: Vec<TopicSpec> = saga_contracts::topic::ALL
        .into_iter()
        .flat_map(|name| {
            [
                TopicSpec::new(name, arguments.partitions),
                TopicSpec::dead_letters_of(name),
            ]
        })
        .collect();
    ensure_topics(&KafkaConfig::plaintext(&arguments.brokers), &topics)
        .await
        .with_context(|| format!("cannot create the topics on {}", arguments.brokers))
}
