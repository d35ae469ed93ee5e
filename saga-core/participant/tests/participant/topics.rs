//! Tests that a participant does not start with unsuitable topics, and can be stopped while its broker is unavailable.

use crate::world::Obedient;
use anyhow::Result;
use saga_messaging::{
    kafka::{KafkaConfig, TopicProblem, admin::TopicCheckError},
    log::LogError,
};
use saga_participant::{
    ParticipantSettings,
    internal::{self, ParticipantConfig, PerCommand},
};
use saga_test_support::environment::TestEnv;
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

async fn run(
    topic: &str,
    brokers: impl Into<String>,
    shutdown: CancellationToken,
) -> Result<Result<(), LogError>> {
    let config =
        ParticipantConfig::new("test", topic, "test").with_settings(&ParticipantSettings {
            batch_limit: 10,
            reply_backlog_ms: 375,
            longest_outage_hours: 1,
            size_limited_topics: false,
            production: false,
        });
    // The database is not used before the topics are approved.
    let nowhere = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none")?;
    let kafka = KafkaConfig::plaintext(brokers);
    let handler = Arc::new(PerCommand::new(Arc::new(Obedient)));
    let running = internal::run(config, handler, None, nowhere, kafka, shutdown);
    Ok(timeout(PATIENCE, running).await?)
}

#[tokio::test]
async fn a_missing_topic_ends_the_start_and_is_named() -> Result<()> {
    let env = TestEnv::shared().await;
    let topic = env.unique("unmade");
    let ended = run(&topic, env.brokers(), CancellationToken::new()).await?;
    let Err(LogError::Refused(refused)) = ended else {
        panic!("{ended:?}");
    };
    let Some(TopicCheckError::Problems(problems)) = refused.downcast_ref() else {
        panic!("{refused:?}");
    };
    assert!(
        problems.contains(&TopicProblem::Missing { topic }),
        "{problems:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_shutdown_is_obeyed_while_the_broker_is_unavailable() -> Result<()> {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let (ended, ()) = tokio::join!(run("test.commands", "127.0.0.1:1", shutdown), async {
        stop.cancel();
    });
    assert!(matches!(ended?, Ok(())));
    Ok(())
}
