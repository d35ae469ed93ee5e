//! The topics that the orchestrator needs, and what it requires of them.

use crate::config::Config;
use anyhow::Context;
use chrono::TimeDelta;
use saga_core::message::topic;
use saga_messaging::kafka::{self, TopicRequirement};
use std::{collections::BTreeSet, time::Duration};

/// The most by which a dead letter can be younger than its saga.
const LETTER_SLACK: TimeDelta = TimeDelta::days(1);

/// Returns the consumed topics, which may have dead letters.
pub(crate) fn consumed(config: &Config) -> BTreeSet<&str> {
    let participants = config
        .participants
        .configured
        .values()
        .map(|one| one.topic.as_str());
    participants.chain([topic::SAGA_INPUTS]).collect()
}

/// Checks the topics, including dead-letter topics: without them, one bad message would stop the service.
pub(crate) async fn check(config: &Config) -> anyhow::Result<()> {
    kafka::check_topics(&config.kafka, &requirements(config))
        .await
        .context("checking the topics (see retention_days and engine.topic_retention_hours)")
}

pub(crate) fn longest_outage(config: &Config) -> Duration {
    Duration::from_secs(u64::from(config.engine.topic_retention_hours) * 3_600)
}

/// Returns what this process requires of the topics. Participants check their own dead-letter topics. Here these topics
/// are optional, and only their retention is limited: a letter that outlives its saga's history could not be replayed.
fn requirements(config: &Config) -> Vec<TopicRequirement> {
    let longest_outage = longest_outage(config);
    let participants = config
        .participants
        .configured
        .values()
        .map(|one| one.topic.as_str());
    let topics: BTreeSet<&str> = participants
        .chain([topic::SAGA_INPUTS, topic::SAGA_EVENTS])
        .collect();
    let letters_at_most = config
        .retention_days
        .time()
        .map(|kept| (kept - LETTER_SLACK).to_std().unwrap_or_default());
    let required = |name: String| TopicRequirement {
        size_limited: config.engine.size_limited_topics,
        production: config.engine.production_topics,
        ..TopicRequirement::new(name, longest_outage)
    };
    topics
        .into_iter()
        .flat_map(|name| {
            let own = name == topic::SAGA_INPUTS;
            let letters = topic::dead_letters_of(name);
            let letters = TopicRequirement {
                retention_at_most: letters_at_most,
                ..if own {
                    required(letters)
                } else {
                    TopicRequirement::optional(letters)
                }
            };
            [required(name.to_owned()), letters]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Orchestrator;
    use saga_service::config::load;

    #[test]
    fn dead_letters_are_kept_for_less_time_than_sagas_are_remembered() {
        let letters = |change: &str| -> Vec<(String, Option<Duration>, bool)> {
            let config = load::<Orchestrator>(None, Some(change)).unwrap();
            let letters = requirements(&config)
                .into_iter()
                .filter(|requirement| requirement.name.strip_suffix(".dlq").is_some());
            letters
                .map(|one| (one.name, one.retention_at_most, one.optional))
                .collect()
        };
        let ten = letters("retention_days = 11");
        let days = Some(Duration::from_hours(240));
        assert!(
            ten.contains(&("saga.inputs.dlq".to_owned(), days, false)),
            "{ten:?}"
        );
        // The dead-letter topic belongs to another service, and is checked only if it exists.
        assert!(
            ten.contains(&("payment.commands.dlq".to_owned(), days, true)),
            "{ten:?}"
        );
        let off = letters("retention_days = 'off'");
        assert!(
            off.iter().all(|(_, at_most, _)| at_most.is_none()),
            "{off:?}"
        );
    }
}
