//! How the private servers are set, and what things are called in them.

use crate::{floor::TOPIC_PREFIX, kafka};
use anyhow::{Context, Result, anyhow};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    metadata::MetadataTopic,
};
use saga_contracts::topic;
use saga_e2e::system::Service;
use std::collections::{BTreeMap, BTreeSet};

/// What a person would set on a machine that the whole system shares; everything that makes a commit safe stays as it is.
const POSTGRES: [(&str, &str); 3] = [
    // The default is sized for a machine of 1995.
    ("shared_buffers", "1GB"),
    // A checkpoint every few seconds of full load, each followed by full pages in the write-ahead log, is what the
    // default comes to.
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
];

/// As the standalone mode's.
pub const KAFKA_HEAP_MB: u32 = 512;

pub fn postgres(over: &[(String, String)]) -> BTreeMap<String, String> {
    let ours = POSTGRES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.into_iter().chain(over.iter().cloned()).collect()
}

/// Told apart from whatever else a given Postgres holds.
pub fn database(service: Service) -> String {
    format!("saga_bench_{}", service.name().replace('-', "_"))
}

/// From a broker that is not ours: the system's topics, and those of the floor.
pub async fn remove_topics(brokers: &str) -> Result<()> {
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("an administrator's client")?;
    let ours: BTreeSet<String> = topic::ALL
        .into_iter()
        .flat_map(|name| [name.to_owned(), topic::dead_letters(name)])
        .collect();
    let metadata = client
        .inner()
        .fetch_metadata(None, kafka::QUERY_TIMEOUT)
        .context("asking which topics there are")?;
    let names: Vec<&str> = metadata
        .topics()
        .iter()
        .map(MetadataTopic::name)
        .filter(|name| ours.contains(*name) || name.starts_with(TOPIC_PREFIX))
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
    fn a_given_setting_goes_over_our_own_and_leaves_the_others() {
        let over = [("shared_buffers", "64MB"), ("jit", "off")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let all = postgres(&over);
        assert_eq!(all["shared_buffers"], "64MB");
        assert_eq!(all["jit"], "off");
        assert_eq!(all["max_wal_size"], "8GB");
    }

    #[test]
    fn no_setting_of_ours_makes_a_commit_less_safe() {
        let risky = ["fsync", "synchronous_commit", "full_page_writes"];
        assert!(POSTGRES.iter().all(|(name, _)| !risky.contains(name)));
    }
}
