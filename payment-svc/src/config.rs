//! Configuration: `config/payment-svc.toml` is both the commented example and the defaults.

use crate::gateway::GatewayConfig;
use saga_messaging::kafka::KafkaConfig;
use saga_participant::{ParticipantSettings, external::CallLimits};
use saga_postgres::PostgresConfig;
use saga_service::{ServiceConfig, config::ConfigError, http::HttpConfig, telemetry::LogConfig};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, time::Duration};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: HttpConfig,
    pub postgres: PostgresConfig,
    pub kafka: KafkaConfig,
    pub log: LogConfig,
    pub participant: ParticipantSettings,
    pub calls: CallsConfig,
    pub gateway: GatewayConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsConfig {
    pub concurrency: usize,
    /// The maximum number of calls per second; 0 for no limit.
    pub per_second: u32,
    pub timeout_ms: u64,
    pub lease_ms: u64,
    pub retry_delay_ms: u64,
    pub key_lifetime_ms: u64,
}

/// The maximum of `calls.concurrency`. More concurrent calls would only wait in the gateway's ledger.
const CONCURRENCY_MAX: usize = 1_000;

impl Config {
    pub fn call_limits(&self) -> CallLimits {
        CallLimits {
            concurrency: self.calls.concurrency,
            per_second: NonZeroU32::new(self.calls.per_second),
            timeout: Duration::from_millis(self.calls.timeout_ms),
            lease: Duration::from_millis(self.calls.lease_ms),
            retry_delay: Duration::from_millis(self.calls.retry_delay_ms),
            key_lifetime: Duration::from_millis(self.calls.key_lifetime_ms),
        }
    }
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
        self.gateway
            .check()
            .map_err(|error| ConfigError(error.to_string()))?;
        self.participant
            .validate()
            .map_err(|error| ConfigError(error.to_string()))?;
        let fail = |message: String| Err(ConfigError(message));
        let calls = &self.calls;
        if !(1..=CONCURRENCY_MAX).contains(&calls.concurrency) {
            return fail(format!(
                "calls.concurrency = {} must be from 1 to {CONCURRENCY_MAX}",
                calls.concurrency
            ));
        }
        if calls.timeout_ms == 0 || calls.lease_ms <= calls.timeout_ms {
            return fail(format!(
                "calls.lease_ms = {} must be above calls.timeout_ms = {}, and that above 0",
                calls.lease_ms, calls.timeout_ms
            ));
        }
        if calls.retry_delay_ms == 0 || calls.key_lifetime_ms <= calls.lease_ms {
            return fail(format!(
                "calls.key_lifetime_ms = {} must be above calls.lease_ms = {}, and \
                 calls.retry_delay_ms = {} above 0",
                calls.key_lifetime_ms, calls.lease_ms, calls.retry_delay_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{PaymentService, gateway::Effect};
    use saga_service::config::{Sources, load, load_from};

    #[test]
    fn the_defaults_are_valid() {
        let config = load::<PaymentService>(None, None).expect("defaults");
        assert_eq!(config.http.listen.port(), 3003);
        assert_eq!(config.gateway.limit.minor("EUR"), 100_000);
        assert!(config.gateway.rules.is_empty());
    }

    #[test]
    fn rules_can_be_given_in_the_environment() {
        const VARIABLE: &str = "PAYMENT_SVC__GATEWAY__RULES";
        let load = |rules: &str| {
            load_from::<PaymentService>(&Sources {
                environment: vec![(VARIABLE.into(), rules.into())],
                ..Sources::default()
            })
        };
        let rules =
            r#"[{operation = "charge", effect = "time_out", times = 1}, {effect = "decline"}]"#;
        let effects: Vec<Effect> = load(rules)
            .expect("rules")
            .gateway
            .rules
            .iter()
            .map(|rule| rule.effect)
            .collect();
        assert_eq!(effects, [Effect::TimeOut, Effect::Decline]);
        assert!(load("").expect("no rules").gateway.rules.is_empty());
        for wrong in [
            "[",
            "1",
            "[{effect = \"explode\"}]",
            "[{colour = \"red\", effect = \"error\"}]",
        ] {
            let error = load(wrong).expect_err(wrong).to_string();
            assert!(
                error.contains("gateway.rules") && error.contains(VARIABLE),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn invalid_settings_are_refused_by_key() {
        let check = |change: &str, expected: &str| {
            let error = load::<PaymentService>(None, Some(change))
                .expect_err(change)
                .to_string();
            assert!(error.contains(expected), "{change}: {error}");
        };
        check("participant.batch_limit = 0", "participant.batch_limit");
        check("calls.lease_ms = 5000", "calls.timeout_ms");
        check("calls.concurrency = 0", "calls.concurrency");
        check("calls.key_lifetime_ms = 1", "calls.key_lifetime_ms");
        check("gateway.limit = \"-1\"", "gateway.limit");
        check("gateway.rules = [{effect = \"delay\"}]", "gateway.rules[0]");
        check(
            "gateway.rules = [{effect = \"delay\", colour = 1}]",
            "colour",
        );
    }
}
