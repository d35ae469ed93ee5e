//! How the private servers are set, and what things are called in them.

use anyhow::{Context, Result};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use saga_contracts::topic;
use saga_e2e::system::Service;
use std::collections::BTreeMap;

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

/// From a broker that is not ours.
pub async fn remove_topics(brokers: &str) -> Result<()> {
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("an administrator's client")?;
    let names: Vec<String> = topic::ALL
        .into_iter()
        .flat_map(|name| [name.to_owned(), topic::dead_letters(name)])
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client
        .delete_topics(&names, &AdminOptions::new())
        .await
        .context("removing the topics")?;
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
