//! Settings of the private servers, and the names of databases and topics in them.

use crate::kafka;
use anyhow::{Context, Result, anyhow};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    metadata::MetadataTopic,
};
use saga_contracts::topic;
use saga_harness::system::Service;
use std::collections::{BTreeMap, BTreeSet};

/// Settings that a person would choose for a machine that runs the whole system. Everything that makes a commit safe
/// keeps its default.
const POSTGRES: [(&str, &str); 3] = [
    // The default is sized for a machine of 1995.
    ("shared_buffers", "1GB"),
    // With the default there is a checkpoint every few seconds of full load, and each is followed by full pages in the
    // write-ahead log.
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
];

/// The settings by which Postgres logs the plans of all statements.
pub const PLANS: [(&str, &str); 5] = [
    ("session_preload_libraries", "auto_explain"),
    ("auto_explain.log_min_duration", "0"),
    ("auto_explain.log_analyze", "on"),
    ("auto_explain.log_timing", "off"),
    ("auto_explain.log_format", "json"),
];

/// The database of the baseline.
pub const BASELINE_DATABASE: &str = "saga_bench_baseline";
/// The prefix of the baseline's topics, which are new for each scenario.
pub const BASELINE_TOPICS: &str = "saga-bench.baseline.";

/// The heap of the private Kafka: the same as in standalone mode.
pub const KAFKA_HEAP_MB: u32 = 512;

pub fn postgres(over: &[(String, String)]) -> BTreeMap<String, String> {
    let ours = POSTGRES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.into_iter().chain(over.iter().cloned()).collect()
}

/// The name of a service's database, which distinguishes it from other databases in a given Postgres.
pub fn database(service: Service) -> String {
    format!("saga_bench_{}", service.name().replace('-', "_"))
}

/// Removes the system's topics and those of the baseline from a broker that is not ours.
pub async fn remove_topics(brokers: &str) -> Result<()> {
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("an administrator's client")?;
    let ours: BTreeSet<String> = topic::ALL
        .into_iter()
        .flat_map(|name| [name.to_owned(), topic::dead_letters_of(name)])
        .collect();
    let metadata = client
        .inner()
        .fetch_metadata(None, kafka::QUERY_TIMEOUT)
        .context("listing the topics")?;
    let names: Vec<&str> = metadata
        .topics()
        .iter()
        .map(MetadataTopic::name)
        .filter(|name| ours.contains(*name) || name.starts_with(BASELINE_TOPICS))
        .collect();
    let removed = client.delete_topics(&names, &AdminOptions::new()).await;
    for outcome in removed.context("removing the topics")? {
        outcome.map_err(|(name, code)| anyhow!("removing the topic {name}: {code}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_setting_overrides_the_default_and_keeps_the_others() {
        let over = [("shared_buffers", "64MB"), ("jit", "off")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let all = postgres(&over);
        assert_eq!(all["shared_buffers"], "64MB");
        assert_eq!(all["jit"], "off");
        assert_eq!(all["max_wal_size"], "8GB");
    }

    #[test]
    fn no_default_setting_weakens_the_durability_of_a_commit() {
        let risky = ["fsync", "synchronous_commit", "full_page_writes"];
        assert!(POSTGRES.iter().all(|(name, _)| !risky.contains(name)));
    }
}
