//! The configuration of the connection to Kafka. All other client properties are fixed in this module's siblings,
//! because the guarantees depend on them; `extra` is for properties that differ between clusters.

use crate::log::LogError;
use rdkafka::ClientConfig;
use saga_core::secret::Secret;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use thiserror::Error;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn authenticates(self) -> bool {
        match self {
            Self::Plaintext | Self::Ssl => false,
            Self::SaslPlaintext | Self::SaslSsl => true,
        }
    }

    fn encrypts(self) -> bool {
        match self {
            Self::Plaintext | Self::SaslPlaintext => false,
            Self::Ssl | Self::SaslSsl => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    /// Returns `true` for SCRAM, whose hashes librdkafka takes from OpenSSL.
    fn needs_openssl(self) -> bool {
        match self {
            Self::Plain => false,
            Self::ScramSha256 | Self::ScramSha512 => true,
        }
    }
}

/// The `kafka` section of a service's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    pub security_protocol: SecurityProtocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<SaslMechanism>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl_password: Option<Secret>,
    /// PEM file with the certificate authorities that sign the brokers' certificates; the system's authorities if
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_ca_location: Option<PathBuf>,
    /// Further librdkafka properties, such as `compression.type` or `client.rack`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

/// The reason why a configuration is invalid; each names the keys to change.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KafkaConfigError {
    #[error("kafka.brokers is empty: give host:port of at least one broker")]
    NoBrokers,
    #[error("kafka.security_protocol = \"{protocol}\" needs kafka.{missing}, which is not set")]
    Incomplete {
        protocol: &'static str,
        missing: &'static str,
    },
    #[error("kafka.{key} is set, but kafka.security_protocol = \"{protocol}\" does not use it")]
    Unused {
        protocol: &'static str,
        key: &'static str,
    },
    #[error(
        "{what} needs OpenSSL, which this binary was built without: build it with the cargo feature `tls`"
    )]
    NoTls { what: String },
    #[error(
        "kafka.extra.\"{0}\" is not yours to set: delivery and offsets would lose their guarantees"
    )]
    Reserved(String),
    #[error("kafka.extra.\"{key}\" belongs into kafka.{instead}")]
    Misplaced { key: String, instead: &'static str },
}

/// Limit for a silent broker: longer than a healthy broker takes for any answer, and short enough that work continues
/// within half of the time that a silent database may take.
const SILENCE_LIMIT_MS: &str = "10000";

/// Properties that the guarantees depend on.
const RESERVED: [&str; 16] = [
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "topic.auto.offset.reset",
    "offset.store.method",
    "enable.partition.eof",
    "partition.assignment.strategy",
    "group.protocol",
    "isolation.level",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "partitioner",
    "transactional.id",
    "allow.auto.create.topics",
];

/// Properties that have their own key, where secrets are masked and combinations are checked.
const MISPLACED: [(&str, &str); 9] = [
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("security.protocol", "security_protocol"),
    ("sasl.mechanism", "sasl_mechanism"),
    ("sasl.mechanisms", "sasl_mechanism"),
    ("sasl.username", "sasl_username"),
    ("sasl.password", "sasl_password"),
    ("ssl.ca.location", "ssl_ca_location"),
    ("group.instance.id", "group_instance_id of the consumer"),
];

impl KafkaConfig {
    /// Returns the configuration for a plaintext broker, as used in the standalone mode and in tests.
    pub fn plaintext(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            ..Self::default()
        }
    }

    /// Checks everything that can be checked without a broker.
    pub fn validate(&self) -> Result<(), KafkaConfigError> {
        if self.brokers.trim().is_empty() {
            return Err(KafkaConfigError::NoBrokers);
        }
        self.validate_sasl()?;
        self.validate_tls(cfg!(feature = "tls"))?;
        for key in self.extra.keys() {
            if RESERVED.contains(&key.as_str()) {
                return Err(KafkaConfigError::Reserved(key.clone()));
            }
            if let Some((_, instead)) = MISPLACED.iter().find(|(name, _)| name == key) {
                return Err(KafkaConfigError::Misplaced {
                    key: key.clone(),
                    instead,
                });
            }
        }
        Ok(())
    }

    fn validate_sasl(&self) -> Result<(), KafkaConfigError> {
        let protocol = self.security_protocol.as_str();
        let keys = [
            ("sasl_mechanism", self.sasl_mechanism.is_some()),
            ("sasl_username", self.sasl_username.is_some()),
            ("sasl_password", self.sasl_password.is_some()),
        ];
        for (key, set) in keys {
            match (self.security_protocol.authenticates(), set) {
                (true, false) => {
                    return Err(KafkaConfigError::Incomplete {
                        protocol,
                        missing: key,
                    });
                }
                (false, true) => return Err(KafkaConfigError::Unused { protocol, key }),
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    fn validate_tls(&self, built_with_tls: bool) -> Result<(), KafkaConfigError> {
        let protocol = self.security_protocol.as_str();
        if !self.security_protocol.encrypts() && self.ssl_ca_location.is_some() {
            return Err(KafkaConfigError::Unused {
                protocol,
                key: "ssl_ca_location",
            });
        }
        if built_with_tls {
            return Ok(());
        }
        if self.security_protocol.encrypts() {
            return Err(KafkaConfigError::NoTls {
                what: format!("kafka.security_protocol = \"{protocol}\""),
            });
        }
        match self.sasl_mechanism {
            Some(mechanism) if mechanism.needs_openssl() => Err(KafkaConfigError::NoTls {
                what: format!("kafka.sasl_mechanism = \"{}\"", mechanism.as_str()),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the configuration that all clients share.
    pub(super) fn client(&self) -> Result<ClientConfig, LogError> {
        self.validate()
            .map_err(|error| LogError::Refused(Box::new(error)))?;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("security.protocol", self.security_protocol.as_str())
            .set("client.id", "saga")
            // Nagle's algorithm would delay small requests while an answer is in flight.
            .set("socket.nagle.disable", "true")
            // The connection to a silent broker is closed and reopened after this long. The default is a minute, during
            // which a consumer asks no other broker.
            .set("socket.timeout.ms", SILENCE_LIMIT_MS)
            .set("socket.connection.setup.timeout.ms", SILENCE_LIMIT_MS)
            .set("socket.keepalive.enable", "true")
            // A restarted broker is found quickly: takeover is promised within ten seconds.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        if let Some(mechanism) = self.sasl_mechanism {
            client.set("sasl.mechanism", mechanism.as_str());
        }
        if let Some(user) = &self.sasl_username {
            client.set("sasl.username", user);
        }
        if let Some(password) = &self.sasl_password {
            client.set("sasl.password", password.expose());
        }
        if let Some(path) = &self.ssl_ca_location {
            client.set("ssl.ca.location", path.to_string_lossy());
        }
        Ok(client)
    }

    /// Applies `extra`, last, so that it can override this crate's defaults.
    pub(super) fn tune(&self, client: &mut ClientConfig) {
        for (key, value) in &self.extra {
            client.set(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl() -> KafkaConfig {
        KafkaConfig {
            security_protocol: SecurityProtocol::SaslPlaintext,
            sasl_mechanism: Some(SaslMechanism::Plain),
            sasl_username: Some("shop".to_owned()),
            sasl_password: Some(Secret::new("hunter2")),
            ..KafkaConfig::plaintext("localhost:9092")
        }
    }

    fn check(change: impl FnOnce(&mut KafkaConfig), expected: &str) {
        let mut config = sasl();
        change(&mut config);
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn invalid_settings_are_refused_before_the_start() {
        check(|c| c.brokers.clear(), "kafka.brokers is empty");
        check(|c| c.sasl_password = None, "needs kafka.sasl_password");
        check(
            |c| c.security_protocol = SecurityProtocol::Plaintext,
            "kafka.sasl_mechanism is set, but",
        );
        check(
            |c| c.ssl_ca_location = Some("/ca.pem".into()),
            "kafka.ssl_ca_location is set, but",
        );
        check(
            |c| {
                c.extra.insert("acks".to_owned(), "1".to_owned());
            },
            "kafka.extra.\"acks\" is not yours to set",
        );
        check(
            |c| {
                c.extra.insert("sasl.password".to_owned(), "x".to_owned());
            },
            "belongs into kafka.sasl_password",
        );
    }

    #[test]
    fn tls_without_openssl_names_the_feature() {
        let mut config = sasl();
        config.sasl_mechanism = Some(SaslMechanism::ScramSha512);
        let message = config.validate_tls(false).unwrap_err().to_string();
        assert!(
            message.contains("SCRAM-SHA-512") && message.contains("`tls`"),
            "{message}"
        );
        config.security_protocol = SecurityProtocol::SaslSsl;
        let message = config.validate_tls(false).unwrap_err().to_string();
        assert!(message.contains("sasl_ssl"), "{message}");
        assert_eq!(config.validate_tls(true), Ok(()));
    }

    #[test]
    fn the_password_is_never_shown() {
        let config = sasl();
        assert_eq!(config.validate(), Ok(()));
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(
            !shown.contains("hunter2") && shown.contains("***"),
            "{shown}"
        );
    }
}
