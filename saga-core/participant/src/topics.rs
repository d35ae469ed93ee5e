//! Checks the participant's topics before it joins its consumer group.

use super::{ParticipantConfig, TopicExpectations};
use saga_core::message::topic::dead_letters_of;
use saga_messaging::{
    kafka::{KafkaConfig, TopicRequirement, admin::TopicCheckError, check_topics},
    log::LogError,
};
use std::time::Duration;
use tracing::warn;

/// Time between two attempts to reach an unavailable broker.
const BROKER_RETRY: Duration = Duration::from_secs(1);

/// Checks once that all topics that the participant reads or writes meet
/// [`ParticipantConfig::topics`].
pub(crate) async fn approve(
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

/// Returns when all topics are approved. Waits for an unavailable broker; returns an error if a topic does not meet the
/// requirements.
pub(super) async fn wait(config: &ParticipantConfig, kafka: &KafkaConfig) -> Result<(), LogError> {
    loop {
        match approve(config, kafka).await {
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
    [config.topic.clone(), dead_letters_of(&config.topic)]
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
            size_limited: false,
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
