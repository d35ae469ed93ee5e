//! The addresses of the system that is audited.

use crate::error::AuditError;
use std::path::Path;

/// Addresses of the four databases and of the broker.
#[derive(Clone, Debug)]
pub struct Sources {
    pub orchestrator: String,
    pub order: String,
    pub inventory: String,
    pub payment: String,
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Further librdkafka properties, such as `security.protocol`.
    pub kafka: Vec<(String, String)>,
    /// Consumer group of the orchestrator. Its offsets show which inputs are not consumed yet.
    pub orchestrator_group: String,
}

/// The sections of a service's configuration file that the audit needs.
#[derive(serde::Deserialize)]
struct ServiceFile {
    postgres: Postgres,
    kafka: Kafka,
}

#[derive(serde::Deserialize)]
struct Postgres {
    url: String,
}

#[derive(serde::Deserialize)]
struct Kafka {
    brokers: String,
}

impl Sources {
    pub const DEFAULT_GROUP: &str = "orchestrator";

    /// Reads the addresses from the files that the standalone mode writes into its data directory.
    pub fn from_data_dir(data_dir: &Path) -> Result<Self, AuditError> {
        let read = |service: &str| -> Result<ServiceFile, AuditError> {
            let path = data_dir.join("config").join(format!("{service}.toml"));
            let failed = |why: String| AuditError::File {
                path: path.clone(),
                why,
            };
            let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
            toml::from_str(&text).map_err(|error| failed(error.message().to_owned()))
        };
        let orchestrator = read("orchestrator")?;
        Ok(Self {
            orchestrator: orchestrator.postgres.url,
            order: read("order-svc")?.postgres.url,
            inventory: read("inventory-svc")?.postgres.url,
            payment: read("payment-svc")?.postgres.url,
            brokers: orchestrator.kafka.brokers,
            kafka: Vec::new(),
            orchestrator_group: Self::DEFAULT_GROUP.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_without_a_system_is_named() {
        let error = Sources::from_data_dir(Path::new("/nowhere")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nowhere/config/orchestrator.toml"), "{text}");
    }
}
