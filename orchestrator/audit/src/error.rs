//! Errors of reading the system.

use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum AuditError {
    #[error("the {database} database cannot be read")]
    Database {
        database: &'static str,
        source: sqlx::Error,
    },
    #[error("the {0} database does not answer")]
    Away(&'static str),
    #[error("topic {topic} cannot be read")]
    Topic {
        topic: String,
        source: rdkafka::error::KafkaError,
    },
    /// No record arrived within the timeout although the topic has more.
    #[error("topic {topic} cannot be read to its end: {missing} partitions stopped short")]
    TopicEnd { topic: String, missing: usize },
    #[error("topic {0} does not exist")]
    NoTopic(String),
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error("reading the topics was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}
