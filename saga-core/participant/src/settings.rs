//! The operator's part of a participant's configuration: the `[participant]` section of a service's configuration.

use saga_messaging::{consumer::ConsumerSettings, kafka::TopicRequirement};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// Largest batch. A larger batch would hold its locks for too long.
const BATCH_LIMIT_MAX: usize = 5_000;

/// The `[participant]` section of a service's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantSettings {
    /// Largest number of commands in a transaction.
    pub batch_limit: usize,
    /// Milliseconds. While the participant catches up on late commands, it throttles so that the orchestrator's input
    /// lag stays below this much reading time; 0 disables the throttle.
    pub reply_backlog_ms: u64,
    /// Longest outage to survive, in hours. Topics must keep their records for longer.
    pub longest_outage_hours: u64,
    /// Allows topics to be limited by size in production, and not by time alone.
    pub size_limited_topics: bool,
    /// Requires the topics to be replicated for production.
    pub production: bool,
}

/// An invalid value in the settings.
#[derive(Debug, Error)]
pub enum ParticipantSettingsError {
    #[error("participant.batch_limit = {0} must be from 1 to {BATCH_LIMIT_MAX}")]
    BatchLimit(usize),
}

impl ParticipantSettings {
    pub fn validate(&self) -> Result<(), ParticipantSettingsError> {
        if (1..=BATCH_LIMIT_MAX).contains(&self.batch_limit) {
            return Ok(());
        }
        Err(ParticipantSettingsError::BatchLimit(self.batch_limit))
    }

    pub(super) fn consumer(&self) -> ConsumerSettings {
        ConsumerSettings {
            batch_limit: self.batch_limit,
            ..ConsumerSettings::default()
        }
    }

    pub(super) fn reply_backlog(&self) -> Duration {
        Duration::from_millis(self.reply_backlog_ms)
    }

    pub(super) fn topics(&self) -> TopicExpectations {
        TopicExpectations {
            longest_outage: Duration::from_secs(self.longest_outage_hours.saturating_mul(3_600)),
            size_limited: self.size_limited_topics,
            production: self.production,
        }
    }
}

/// Requirements that a participant's topics must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicExpectations {
    /// Topics must keep their records for longer than this.
    pub longest_outage: Duration,
    /// Topics may be limited by size, too.
    pub size_limited: bool,
    /// Topics must be replicated for production.
    pub production: bool,
}

impl TopicExpectations {
    pub(super) fn requirement(&self, topic: impl Into<String>) -> TopicRequirement {
        TopicRequirement {
            size_limited: self.size_limited,
            production: self.production,
            ..TopicRequirement::new(topic, self.longest_outage)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_limit_out_of_range_is_named() {
        for (batch_limit, valid) in [(0, false), (1, true), (5_000, true), (5_001, false)] {
            let settings = ParticipantSettings {
                batch_limit,
                reply_backlog_ms: 375,
                longest_outage_hours: 1,
                size_limited_topics: false,
                production: false,
            };
            match settings.validate() {
                Ok(()) => assert!(valid, "{batch_limit}"),
                Err(error) => {
                    assert!(!valid, "{batch_limit}");
                    assert!(error.to_string().contains("participant.batch_limit"));
                }
            }
        }
    }

    #[test]
    fn topics_must_outlast_the_longest_outage() {
        let settings = ParticipantSettings {
            batch_limit: 1,
            reply_backlog_ms: 375,
            longest_outage_hours: 72,
            size_limited_topics: false,
            production: true,
        };
        let requirement = settings.topics().requirement("a.commands");
        assert_eq!(requirement.name, "a.commands");
        assert_eq!(requirement.retention, Duration::from_hours(72));
        assert!(requirement.production);
    }
}
