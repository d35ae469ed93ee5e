//! The look at its topics that a participant takes before it joins its group.

use super::{ParticipantConfig, TopicExpectations};
use crate::{
    dead_letter,
    kafka::{KafkaConfig, TopicRequirement, admin::TopicCheckError, check_topics},
    log::LogError,
};
use std::time::Duration;
use tracing::warn;

/// Between two looks at a broker that is away.
const BROKER_RETRY: Duration = Duration::from_secs(1);

/// Looks once whether all topics that the participant reads or writes are as [`ParticipantConfig::topics`] expects. For
/// a service that waits for the broker in its own way; [`run`](super::run) then need not look.
pub async fn approve_topics(
    config: &ParticipantConfig,
    kafka: &KafkaConfig,
) -> Result<(), LogError> {
    let Some(expected) = config.topics else {
        return Ok(());
    };
    match check_topics(kafka, &required(config, expected)).await {
        Ok(()) => Ok(()),
        Err(TopicCheckError::Log(error)) => Err(error),
        Err(problems @ TopicCheckError::Problems(_)) => Err(LogError::Refused(Box::new(problems))),
    }
}

/// Returns when all topics are approved. A broker that is away is waited for; topics that are not as they must be are
/// refused.
pub(super) async fn wait(config: &ParticipantConfig, kafka: &KafkaConfig) -> Result<(), LogError> {
    loop {
        match approve_topics(config, kafka).await {
            Err(error @ LogError::Unavailable(_)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "waiting for the broker"
                );
                tokio::time::sleep(BROKER_RETRY).await;
            }
            approved => return approved,
        }
    }
}

fn required(config: &ParticipantConfig, expected: TopicExpectations) -> Vec<TopicRequirement> {
    [config.topic.clone(), dead_letter::topic_of(&config.topic)]
        .into_iter()
        .chain(config.reply_topics.iter().cloned())
        .map(|topic| expected.requirement(topic))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_dead_letters_and_replies_need_a_topic() {
        let config = ParticipantConfig::new("shipping", "shipping.commands", "shipping-svc");
        let expected = TopicExpectations {
            longest_outage: Duration::from_hours(1),
            production: false,
        };
        let names: Vec<String> = required(&config, expected)
            .into_iter()
            .map(|requirement| requirement.name)
            .collect();
        assert_eq!(
            names,
            ["shipping.commands", "shipping.commands.dlq", "saga.inputs"]
        );
    }
}
