//! Runs a participant: the consumer, the external calls, the upkeep of its tables, and the checks of its database.

use crate::{
    BarrierUpkeep, CommandProcessor, ParticipantConfig, RawBatchHandler, RawCalls,
    throttle::CatchUpThrottle, topics,
};
use saga_messaging::{
    consumer,
    database::{self, Database, DatabaseError},
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, RecordLossDetector},
    log::LogError,
    progress::Watched,
};
use saga_postgres::clock::Clock;
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The reason why a participant may not run now.
#[derive(Debug, Error)]
pub enum ApprovalError {
    #[error("the participant's topics cannot be used")]
    Topics(#[source] LogError),
    #[error("the participant's consumer group cannot be used")]
    Database(#[source] DatabaseError),
}

/// Checks once that the topics are as required, and that the group belongs to this database or to none.
pub(crate) async fn approve(
    config: &ParticipantConfig,
    pool: &PgPool,
    kafka: &KafkaConfig,
) -> Result<Arc<Database>, ApprovalError> {
    topics::approve(config, kafka)
        .await
        .map_err(ApprovalError::Topics)?;
    database::approve(pool, kafka, &config.group, &config.topic)
        .await
        .map_err(ApprovalError::Database)
}

/// Waits until the participant is approved. Returns an error that waiting does not cure.
async fn wait(
    config: &ParticipantConfig,
    pool: &PgPool,
    kafka: &KafkaConfig,
) -> Result<Arc<Database>, LogError> {
    topics::wait(config, kafka).await?;
    database::wait(pool, kafka, &config.group, &config.topic).await
}

/// Waits until the participant is approved, and runs it until `shutdown`.
pub async fn start<H: RawBatchHandler<PgConnection>>(
    config: ParticipantConfig,
    handler: Arc<H>,
    calls: Option<Arc<dyn RawCalls<PgConnection>>>,
    pool: PgPool,
    kafka: KafkaConfig,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    let database = tokio::select! {
        biased;
        approved = wait(&config, &pool, &kafka) => approved?,
        () = shutdown.cancelled() => return Ok(()),
    };
    run(config, handler, calls, (pool, database), kafka, shutdown).await
}

/// Runs a participant on its approved database until `shutdown`. `calls` is needed by a handler that returns
/// [`Answer::CallOutside`](crate::Answer::CallOutside).
pub(crate) async fn run<H: RawBatchHandler<PgConnection>>(
    mut config: ParticipantConfig,
    handler: Arc<H>,
    calls: Option<Arc<dyn RawCalls<PgConnection>>>,
    (pool, database): (PgPool, Arc<Database>),
    kafka: KafkaConfig,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    config.reader.database = Some(Arc::clone(&database));
    config.reader.progress = config.progress.clone();
    let upkeep = BarrierUpkeep::new(
        pool.clone(),
        config.partitions_ahead_days,
        config.partition_alarm.clone(),
    );
    upkeep.first(&shutdown).await;
    let watched = pool.clone();
    let mut settings = config.consumer;
    if let Some(limit) = handler.batch_limit() {
        settings.batch_limit = settings.batch_limit.min(limit);
    }
    if let Some(calls) = &calls {
        settings.batch_limit = settings.batch_limit.min(calls.limits().waiting());
    }
    let writer = KafkaWriter::connect(&kafka)?;
    let options = config.reader.clone();
    let reader = KafkaReader::subscribe(&kafka, &config.group, &[&config.topic], options)?;
    let (frame, open) = CommandProcessor::new(config.clone(), handler, calls, pool.clone());
    let frame = Watched::new(frame, config.progress.clone());
    // The orchestrator detects that its commands are lost, and sends them again.
    let (place, known) = ((&*config.group, &*config.topic), Arc::clone(&database));
    let frame = RecordLossDetector::new(frame, &kafka, place, known, |_, _| {})?;
    let frame = CatchUpThrottle::new(frame, &config, &kafka)?;
    // The tasks end with `shutdown`, or earlier if the consumer or the database check gives up.
    let stop = shutdown.child_token();
    let tasks = TaskTracker::new();
    let keeping = keep(database, pool, kafka, config.group, stop.clone());
    let keeping = tasks.spawn(keeping.in_current_span());
    tasks.spawn(upkeep.run(stop.clone()).in_current_span());
    let clock = Clock::of_process().watch(watched, stop.clone());
    tasks.spawn(clock.in_current_span());
    if let Some(open) = open {
        tasks.spawn(open.run(writer.clone(), stop.clone()).in_current_span());
    }
    let ended = consumer::run(reader, writer, frame, settings, stop.clone()).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    ended?;
    keeping.await.unwrap_or(Ok(()))
}

/// Checks the database until `stop`. Cancels `stop` if the participant cannot go on.
async fn keep(
    database: Arc<Database>,
    pool: PgPool,
    kafka: KafkaConfig,
    group: String,
    stop: CancellationToken,
) -> Result<(), LogError> {
    let kept = database::keep(database, pool, kafka, group, stop.clone()).await;
    stop.cancel();
    kept
}
