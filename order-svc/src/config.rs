//! Configuration: `config/order-svc.toml` is both the commented example and the defaults.

use crate::{domain::limits::MAX_WAIT_SECONDS, http::order_request::RequestRules};
use saga_contracts::money::{CurrencyUnit, MoneyError};
use saga_messaging::{
    backpressure::{Backpressure, Bounds},
    batcher::BatcherSettings,
    kafka::KafkaConfig,
};
use saga_participant::ParticipantSettings;
use saga_postgres::PostgresConfig;
use saga_service::{ServiceConfig, config::ConfigError, http::HttpConfig, telemetry::LogConfig};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub orchestrator_url: String,
    pub http: HttpConfig,
    pub postgres: PostgresConfig,
    pub kafka: KafkaConfig,
    pub log: LogConfig,
    pub orders: OrdersConfig,
    pub intake: IntakeConfig,
    pub participant: ParticipantSettings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdersConfig {
    /// The ISO 4217 code of the currency of orders that name none.
    pub currency: String,
    /// The saga definition of orders that name none.
    pub definition: String,
    /// The saga definitions that an order may name.
    pub definitions: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeConfig {
    pub window_ms: u64,
    pub batch_limit: usize,
    pub queue_limit: usize,
    pub backlog_limit: u64,
    pub backlog_ms: u64,
}

impl Config {
    pub fn rules(&self) -> Result<RequestRules, MoneyError> {
        Ok(RequestRules {
            currency: CurrencyUnit::from_code(&self.orders.currency)?,
            definition: self.orders.definition.clone(),
            definitions: self.orders.definitions.clone(),
        })
    }

    pub fn pressure(&self) -> Backpressure {
        Backpressure::new(Bounds {
            patience: Duration::from_millis(self.intake.backlog_ms),
            least: BACKLOG_LEAST,
            at_first: self.intake.backlog_limit,
            limit: self.intake.backlog_limit,
        })
    }

    pub fn batcher(&self) -> BatcherSettings {
        BatcherSettings {
            batch_limit: self.intake.batch_limit,
            queue_limit: self.intake.queue_limit,
            window: Duration::from_millis(self.intake.window_ms),
            // While one batch commits, the next one runs.
            in_flight: 2,
        }
    }
}

/// The number of waiting messages that is never refused: a burst of orders is not an overload.
const BACKLOG_LEAST: u64 = 1_000;
/// The longest window. Every caller would notice a longer one.
const MAX_WINDOW_MS: u64 = 1_000;

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
        let fail = |message: String| Err(ConfigError(message));
        if let Err(error) = self.kafka.validate() {
            return fail(error.to_string());
        }
        if let Err(error) = self.rules() {
            return fail(format!(
                "orders.currency = \"{}\" {error}",
                self.orders.currency
            ));
        }
        if !self.orders.definitions.contains(&self.orders.definition) {
            return fail(format!(
                "orders.definition = \"{}\" is not one of orders.definitions = {:?}",
                self.orders.definition, self.orders.definitions
            ));
        }
        if !self.orchestrator_url.starts_with("http://") {
            return fail(format!(
                "orchestrator_url = \"{}\" must begin with http://",
                self.orchestrator_url
            ));
        }
        if self.http.request_timeout_ms <= MAX_WAIT_SECONDS * 1_000 {
            return fail(format!(
                "http.request_timeout_ms = {} must be above the longest Prefer: wait, {MAX_WAIT_SECONDS} s",
                self.http.request_timeout_ms
            ));
        }
        if self.intake.batch_limit == 0 || self.intake.queue_limit < self.intake.batch_limit {
            return fail(format!(
                "intake.batch_limit = {} must be from 1 to intake.queue_limit = {}",
                self.intake.batch_limit, self.intake.queue_limit
            ));
        }
        if let Err(error) = self.participant.validate() {
            return fail(error.to_string());
        }
        if self.intake.backlog_ms == 0 {
            return fail("intake.backlog_ms = 0 must be at least 1".to_owned());
        }
        if self.intake.window_ms > MAX_WINDOW_MS {
            return fail(format!(
                "intake.window_ms = {} must be at most {MAX_WINDOW_MS}",
                self.intake.window_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OrderService;

    fn check(change: &str, expected: &str) {
        let config = saga_service::config::load::<OrderService>(None, Some(change));
        let error = config.expect_err(change).to_string();
        assert!(error.contains(expected), "{change}: {error}");
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = saga_service::config::load::<OrderService>(None, None).expect("defaults");
        assert_eq!(config.http.listen.port(), 3000);
        config.check().expect("valid");
    }

    #[test]
    fn invalid_and_contradictory_settings_are_refused_by_key() {
        check("orders.currency = \"EURO\"", "orders.currency");
        check("orders.definition = \"other\"", "orders.definitions");
        check("orchestrator_url = \"ftp://x\"", "orchestrator_url");
        check("http.request_timeout_ms = 30000", "http.request_timeout_ms");
        check("intake.batch_limit = 5000", "intake.queue_limit");
        check("intake.window_ms = 5000", "intake.window_ms");
        check("intake.backlog_ms = 0", "intake.backlog_ms");
        check("participant.batch_limit = 0", "participant.batch_limit");
        check("kafka.brokers = \"\"", "kafka.brokers");
        check("intake.colour = 1", "colour");
    }
}
