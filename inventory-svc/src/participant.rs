//! Joins the group that handles `inventory.commands`.

use crate::{Config, handler::InventoryHandler};
use anyhow::Result;
use saga_contracts::{
    message_type::{INVENTORY_RELEASE, INVENTORY_RELEASED},
    topic,
};
use saga_messaging::{
    kafka,
    participant::{self, ParticipantConfig},
    partition::PartitionAlarm,
};
use saga_service::{
    health::Readiness,
    startup::{Server, until},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until `shutdown`. A broker that is away is waited for, and then the service is ready; topics that are not as they
/// must be end it.
pub async fn run(
    config: Config,
    pool: PgPool,
    alarm: PartitionAlarm,
    ready: Readiness,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut participant = ParticipantConfig::new(
        "inventory",
        topic::INVENTORY_COMMANDS,
        topic::INVENTORY_GROUP,
    )
    .compensation_reply(INVENTORY_RELEASE, INVENTORY_RELEASED)
    .with_settings(&config.participant)
    .with_partition_alarm(alarm);
    let look = || async { Ok(participant::approve_topics(&participant, &config.kafka).await?) };
    let servers = [Server::kafka(&config.kafka.brokers, kafka::is_away)];
    if until(&servers, &ready, &shutdown, look).await?.is_none() {
        return Ok(());
    }
    ready.ready();
    participant.topics = None;
    let handler = Arc::new(InventoryHandler);
    participant::run(participant, handler, None, pool, config.kafka, shutdown).await?;
    Ok(())
}
