//! Joins the group that handles `inventory.commands`.

use crate::{Config, handler::InventoryHandler};
use anyhow::Result;
use saga_contracts::{
    message_type::{INVENTORY_RELEASE, INVENTORY_RELEASED},
    topic,
};
use saga_messaging::{
    participant::{self, ParticipantConfig},
    partition::PartitionAlarm,
};
use saga_service::{health::Readiness, startup::participant::approved};
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
    let participant = ParticipantConfig::new(
        "inventory",
        topic::INVENTORY_COMMANDS,
        topic::INVENTORY_GROUP,
    )
    .compensation_reply(INVENTORY_RELEASE, INVENTORY_RELEASED)
    .with_settings(&config.participant)
    .with_partition_alarm(alarm);
    let nothing_more = || async { Ok(()) };
    let approved = approved(participant, &config.kafka, &ready, &shutdown, nothing_more);
    let Some(participant) = approved.await? else {
        return Ok(());
    };
    let handler = Arc::new(InventoryHandler);
    participant::run(participant, handler, None, pool, config.kafka, shutdown).await?;
    Ok(())
}
