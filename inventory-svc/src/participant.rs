//! Runs the participant in the consumer group that handles `inventory.commands`.

use crate::{config::Config, handler::InventoryHandler};
use anyhow::Result;
use saga_contracts::{message_type::INVENTORY_FAILED, topic};
use saga_messaging::{kafka, partition::PartitionAlarm, progress::Progress};
use saga_participant::Participant;
use saga_service::{
    health::Readiness,
    startup::{Server, until_ready},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Runs the participant until `shutdown`. Waits for the broker if it is unavailable, and then sets the service to
/// ready. Fails if the topics are not as required, or if the group belongs to another database.
pub async fn run(
    config: Config,
    pool: PgPool,
    (alarm, progress): (PartitionAlarm, Progress),
    ready: Readiness,
    shutdown: CancellationToken,
) -> Result<()> {
    let participant = Participant::batch("inventory", InventoryHandler)
        .topic(topic::INVENTORY_COMMANDS)
        .group(topic::INVENTORY_GROUP)
        .failure_reply(INVENTORY_FAILED)
        .settings(&config.participant)
        .partition_alarm(alarm)
        .progress(progress);
    let servers = [
        Server::kafka(&config.kafka.brokers, kafka::is_unavailable),
        Server::postgres(&config.postgres),
    ];
    let approve = || async { Ok(participant.approve(&pool, &config.kafka).await?) };
    let Some(approved) = until_ready(&servers, &ready, &shutdown, approve).await? else {
        return Ok(());
    };
    participant
        .run_approved(approved, pool, config.kafka, shutdown)
        .await?;
    Ok(())
}
