//! Configuration: `config/inventory-svc.toml` is both the commented example and the defaults.

use saga_messaging::kafka::KafkaConfig;
use saga_participant::ParticipantSettings;
use saga_postgres::PostgresConfig;
use saga_service::{ServiceConfig, config::ConfigError, http::HttpConfig, telemetry::LogConfig};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: HttpConfig,
    pub postgres: PostgresConfig,
    pub kafka: KafkaConfig,
    pub log: LogConfig,
    pub participant: ParticipantSettings,
}

impl ServiceConfig for Config {
    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn postgres(&self) -> Option<&PostgresConfig> {
        Some(&self.postgres)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.kafka
            .validate()
            .map_err(|error| ConfigError(error.to_string()))?;
        self.participant
            .validate()
            .map_err(|error| ConfigError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use crate::InventoryService;
    use saga_service::config::load;

    #[test]
    fn the_defaults_are_valid() {
        let config = load::<InventoryService>(None, None).expect("defaults");
        assert_eq!(config.http.listen.port(), 3002);
    }

    #[test]
    fn invalid_settings_are_refused_by_key() {
        let check = |change: &str, expected: &str| {
            let error = load::<InventoryService>(None, Some(change))
                .expect_err(change)
                .to_string();
            assert!(error.contains(expected), "{change}: {error}");
        };
        check("participant.batch_limit = 0", "participant.batch_limit");
        check("kafka.brokers = \"\"", "kafka.brokers");
        check("participant.colour = 1", "colour");
    }
}
