//! The orchestrator's configuration. `config/orchestrator.toml` holds the defaults, with a comment on each.

mod retention_days;

pub use retention_days::RetentionDays;

use crate::{
    engine::settings::{EngineSettings, Participants},
    http::page::PageConfig,
};
use saga_core::message::{PayloadLimit, topic};
use saga_messaging::kafka::KafkaConfig;
use saga_postgres::PostgresConfig;
use saga_service::{
    ServiceConfig,
    config::ConfigError,
    http::{AccessConfig, HttpConfig},
    telemetry::LogConfig,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `ce_source` of every record that the orchestrator sends.
pub const SOURCE: &str = "/saga/orchestrator";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions_dir: Option<PathBuf>,
    pub shipped_definitions: bool,
    pub retention_days: RetentionDays,
    #[serde(default)]
    pub access: AccessConfig,
    pub http: HttpConfig,
    pub postgres: PostgresConfig,
    pub kafka: KafkaConfig,
    pub log: LogConfig,
    pub engine: EngineConfig,
    pub intake: IntakeConfig,
    pub page: PageConfig,
    pub participants: Participants,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    pub batch_limit: usize,
    pub message_limit_bytes: usize,
    pub history_ahead_days: u32,
    pub topic_retention_hours: u32,
    pub size_limited_topics: bool,
    pub production_topics: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeConfig {
    pub max_backlog: u64,
}

/// The largest `engine.batch_limit`. With more rows in one transaction, locks are held longer than the batching saves.
const BATCH_LIMIT_MAX: usize = 5_000;
/// The smallest `engine.message_limit_bytes`. Below it, not even small commands fit beside their headers.
const MESSAGE_LIMIT_MIN_BYTES: usize = 65_536;

/// The smallest `engine.history_ahead_days`. Ids may lie a day ahead of the database's clock, and upkeep may be late.
const HISTORY_AHEAD_MIN_DAYS: u32 = 2;
/// Hours that the retention must exceed the longest outage by, so that a start that waited out the outage is still
/// accepted.
const RETENTION_SLACK_HOURS: u64 = 24;

impl Config {
    pub fn engine_settings(&self) -> EngineSettings {
        EngineSettings {
            inputs_topic: topic::SAGA_INPUTS.to_owned(),
            events_topic: topic::SAGA_EVENTS.to_owned(),
            source: SOURCE.to_owned(),
            participants: self.participants.clone(),
            payload_limit: PayloadLimit::of_message(self.engine.message_limit_bytes),
        }
    }

    fn check_engine(&self) -> Result<(), ConfigError> {
        let engine = &self.engine;
        let failed = if !(1..=BATCH_LIMIT_MAX).contains(&engine.batch_limit) {
            format!("engine.batch_limit must be 1 to {BATCH_LIMIT_MAX}")
        } else if engine.message_limit_bytes < MESSAGE_LIMIT_MIN_BYTES {
            format!("engine.message_limit_bytes must be {MESSAGE_LIMIT_MIN_BYTES} or more")
        } else if self.http.body_limit_bytes > engine.message_limit_bytes.saturating_mul(2) {
            "http.body_limit_bytes is far above engine.message_limit_bytes: what is accepted could never be sent"
                .to_owned()
        } else if engine.history_ahead_days < HISTORY_AHEAD_MIN_DAYS {
            format!(
                "engine.history_ahead_days must be {HISTORY_AHEAD_MIN_DAYS} or more: ids may lie a day ahead"
            )
        } else {
            return Ok(());
        };
        Err(ConfigError(failed))
    }

    /// Checks that a start that was held back by the longest outage is still younger than the retention.
    fn check_retention(&self) -> Result<(), ConfigError> {
        let RetentionDays::Days(days) = self.retention_days else {
            return Ok(());
        };
        let outage_hours = u64::from(self.engine.topic_retention_hours);
        if u64::from(days) * 24 < outage_hours + RETENTION_SLACK_HOURS {
            return Err(ConfigError(format!(
                "retention_days = {days} must be above engine.topic_retention_hours = {outage_hours} by \
                 {RETENTION_SLACK_HOURS} hours: a start that waited out the longest outage would be too old to begin"
            )));
        }
        Ok(())
    }

    fn check_participants(&self) -> Result<(), ConfigError> {
        for (name, participant) in &self.participants.configured {
            let topic = &participant.topic;
            if topic.is_empty() || participant.group.is_empty() {
                return Err(ConfigError(format!(
                    "participants.{name} needs both topic and group"
                )));
            }
            if [topic::SAGA_INPUTS, topic::SAGA_EVENTS].contains(&topic.as_str()) {
                return Err(ConfigError(format!(
                    "participants.{name}.topic is '{topic}', which is the orchestrator's own"
                )));
            }
        }
        Ok(())
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
        self.check_retention()?;
        self.kafka
            .validate()
            .map_err(|error| ConfigError(error.to_string()))?;
        self.check_engine()?;
        self.page.check()?;
        self.check_participants()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Orchestrator;
    use saga_service::config::{Sources, load_from};

    fn load(overrides: &str) -> Result<Config, String> {
        let sources = Sources {
            overrides: Some(overrides),
            ..Sources::default()
        };
        load_from::<Orchestrator>(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_file_is_the_configuration() {
        let config = load("").unwrap();
        assert_eq!(config.participants.topic("payment"), "payment.commands");
        assert!(config.shipped_definitions && config.definitions_dir.is_none());
    }

    #[test]
    fn invalid_settings_are_refused_with_the_names_of_their_keys() {
        for (overrides, names) in [
            ("retention_days = 0", &["retention_days", "\"off\""][..]),
            ("retention_days = 'never'", &["retention_days", "never"]),
            (
                "retention_days = 2\n[engine]\ntopic_retention_hours = 25",
                &["retention_days", "engine.topic_retention_hours"],
            ),
            (
                "[engine]\nhistory_ahead_days = 1",
                &["engine.history_ahead_days"],
            ),
            ("[engine]\nbatch_limit = 0", &["engine.batch_limit"]),
            (
                "[participants.mail]\ntopic = ''\ngroup = 'mail'",
                &["participants.mail"],
            ),
            (
                "[participants.mail]\ntopic = 'saga.inputs'\ngroup = 'mail'",
                &["participants.mail.topic"],
            ),
            ("[engine]\nbatch_limits = 1", &["batch_limits"]),
        ] {
            let message = load(overrides).unwrap_err();
            for name in names {
                assert!(message.contains(name), "{message}");
            }
        }
    }

    #[test]
    fn retention_is_a_number_of_days_or_off_also_in_the_environment() {
        assert_eq!(load("").unwrap().retention_days, RetentionDays::Days(30));
        let off = load("retention_days = 'off'").unwrap().retention_days;
        assert_eq!((off, off.time()), (RetentionDays::Off, None));
        let sources = Sources {
            environment: vec![("ORCHESTRATOR__RETENTION_DAYS".into(), "7".into())],
            ..Sources::default()
        };
        let config = load_from::<Orchestrator>(&sources).unwrap();
        assert_eq!(config.retention_days, RetentionDays::Days(7));
    }
}
