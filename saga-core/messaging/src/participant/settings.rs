//! The part of a participant that its operator decides: the `[participant]` section of a service's configuration.

use crate::{kafka::TopicRequirement, rule::RuleSettings};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// A larger batch holds its locks for longer than others should wait.
const BATCH_LIMIT_MAX: usize = 5_000;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantSettings {
    /// Commands that share a transaction at most.
    pub batch_limit: usize,
    /// Milliseconds. While commands are caught up with that have waited, no more may wait for the orchestrator than it
    /// reads in this time; 0 for no such bound.
    pub reply_backlog_ms: u64,
    /// Topics must keep their records for longer than this.
    pub longest_outage_hours: u64,
    /// Whether topics must be replicated as they should be in production.
    pub production: bool,
}

/// A value that no participant can run with.
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

    pub(super) fn rule(&self) -> RuleSettings {
        RuleSettings {
            batch_limit: self.batch_limit,
            ..RuleSettings::default()
        }
    }

    pub(super) fn reply_backlog(&self) -> Duration {
        Duration::from_millis(self.reply_backlog_ms)
    }

    pub(super) fn topics(&self) -> TopicExpectations {
        TopicExpectations {
            longest_outage: Duration::from_secs(self.longest_outage_hours.saturating_mul(3_600)),
            production: self.production,
        }
    }
}

/// What a participant's topics must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicExpectations {
    /// They keep their records for longer than this.
    pub longest_outage: Duration,
    /// They are replicated as they should be in production.
    pub production: bool,
}

impl TopicExpectations {
    pub(super) fn requirement(&self, topic: impl Into<String>) -> TopicRequirement {
        TopicRequirement {
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
            production: true,
        };
        let requirement = settings.topics().requirement("a.commands");
        assert_eq!(requirement.name, "a.commands");
        assert_eq!(requirement.retention, Duration::from_hours(72));
        assert!(requirement.production);
    }
}
