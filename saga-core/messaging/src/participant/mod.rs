//! The participant's side: the barrier in the participant's own database, in the handler's own transaction.
//!
//! A participant implements [`CommandHandler`] (one command at a time) or [`BatchHandler`] (the shared rows of a
//! whole batch, locked once); one that calls the outside world implements [`ExternalCalls`] too. [`run`] does the
//! rest: duplicates get the saved reply, compensations of what never ran are empty, late actions are refused, and
//! `resolve` is answered without a handler.
//!
//! ```text
//!  <participant>.commands ─▶ Frame ─────────────▶ replies ─▶ saga.inputs
//!                             │  ▲ barrier, intents
//!                             ▼  │
//!                        OpenCalls ─▶ the outside ─▶ settlement ─▶ replies
//! ```
//!
//! What all this needs of a database is in [`storage`]: a `PgPool` in production, tables in memory in a simulation.
//! In Postgres it needs the tables of [`crate::migrations`]; their partitions are made ahead by [`run`]. The
//! example `shipping` in this crate is a whole participant.

mod barrier;
mod calls;
mod config;
mod core;
mod external;
mod fold;
mod frame;
mod give_way;
mod guard;
mod handler;
pub mod inbox;
mod intake;
mod intent;
mod labels;
mod payload;
mod per_command;
mod reply;
mod settings;
pub mod storage;
mod store;
mod topics;
mod upkeep;

pub use barrier::RowKey;
pub use calls::{Answered, Finished, Job, OpenCalls, Swept};
pub use config::ParticipantConfig;
pub use external::{CallLimits, CallOutcome, ExternalCalls, Settlement};
pub use frame::Frame;
pub use handler::{Answer, BatchHandler, CommandHandler, HandlerError};
pub use payload::read_payload;
pub use per_command::PerCommand;
pub use settings::{ParticipantSettings, ParticipantSettingsError, TopicExpectations};
pub use topics::approve_topics;
pub use upkeep::BarrierUpkeep;

use crate::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, LossWatch},
    log::LogError,
    rule,
};
use give_way::GiveWay;
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Runs a participant that handles one command at a time, until `shutdown`.
pub async fn run_commands<H: CommandHandler>(
    config: ParticipantConfig,
    handler: Arc<H>,
    pool: PgPool,
    kafka: KafkaConfig,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    let handler = Arc::new(PerCommand::new(handler));
    run(config, handler, None, pool, kafka, shutdown).await
}

/// Runs a participant until `shutdown`. `calls` is for one that answers [`Answer::CallOutside`]; wrap a
/// [`CommandHandler`] that does in [`PerCommand`].
///
/// Topics are looked at first, if [`ParticipantConfig::topics`] says what they must be like: a broker that is away is
/// waited for, topics that are not as they must be end it.
pub async fn run<H: BatchHandler>(
    config: ParticipantConfig,
    handler: Arc<H>,
    calls: Option<Arc<dyn ExternalCalls>>,
    pool: PgPool,
    kafka: KafkaConfig,
    shutdown: CancellationToken,
) -> Result<(), LogError> {
    tokio::select! {
        biased;
        approved = topics::wait(&config, &kafka) => approved?,
        () = shutdown.cancelled() => return Ok(()),
    }
    let upkeep = BarrierUpkeep::new(
        pool.clone(),
        config.partitions_ahead_days,
        config.partition_alarm.clone(),
    );
    upkeep.first(&shutdown).await;
    let mut settings = config.rule;
    if let Some(limit) = handler.batch_limit() {
        settings.batch_limit = settings.batch_limit.min(limit);
    }
    if let Some(calls) = &calls {
        settings.batch_limit = settings.batch_limit.min(calls.limits().waiting());
    }
    let writer = KafkaWriter::connect(&kafka)?;
    let reader = KafkaReader::subscribe(
        &kafka,
        &config.group,
        &[&config.topic],
        config.reader.clone(),
    )?;
    let (frame, open) = Frame::new(config.clone(), handler, calls, pool);
    // The orchestrator sees that its commands are gone, and sends them again.
    let frame = LossWatch::new(frame, &kafka, &config.group, &config.topic, |_, _| {})?;
    let frame = GiveWay::new(frame, &config, &kafka)?;
    // Ends with `shutdown`, and with the consumer should that give up first.
    let stop = shutdown.child_token();
    let tasks = TaskTracker::new();
    tasks.spawn(upkeep.run(stop.clone()).in_current_span());
    if let Some(open) = open {
        tasks.spawn(open.run(writer.clone(), stop.clone()).in_current_span());
    }
    let ended = rule::run(reader, writer, frame, settings, shutdown).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    ended
}
