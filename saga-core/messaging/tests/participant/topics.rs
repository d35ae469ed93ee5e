//! A participant whose topics are not as they must be does not start; one whose broker is away can be stopped.

use crate::world::Obedient;
use anyhow::Result;
use saga_messaging::{
    kafka::{KafkaConfig, TopicProblem, admin::TopicCheckError},
    log::LogError,
    participant::{ParticipantConfig, ParticipantSettings, run_commands},
};
use saga_testkit::environment::TestEnv;
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
            production: false,
        });
    // Nobody asks the database before the topics are right.
    let nowhere = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none")?;
    let kafka = KafkaConfig::plaintext(brokers);
    let running = run_commands(config, Arc::new(Obedient), nowhere, kafka, shutdown);
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
async fn the_shutdown_is_heard_while_the_broker_is_away() -> Result<()> {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let (ended, ()) = tokio::join!(run("test.commands", "127.0.0.1:1", shutdown), async {
        stop.cancel();
    });
    assert!(matches!(ended?, Ok(())));
    Ok(())
}
