//! Runs the participant in the consumer group that handles `payment.commands`.

use crate::{
    calls::GatewayCalls,
    config::Config,
    gateway::{Ledger, SimulatedGateway},
    handler::PaymentHandler,
};
use anyhow::Result;
use saga_contracts::{message_type::PAYMENT_FAILED, topic};
use saga_messaging::{kafka, partition::PartitionAlarm, progress::Progress};
use saga_participant::Participant;
use saga_service::{
    health::Readiness,
    startup::{Server, until_ready},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs the participant until `shutdown`. Waits for the broker if it is unavailable, and then sets the service to
/// ready. Fails if the topics are not as required, or if the group belongs to another database.
pub async fn run(
    config: Config,
    ledger: Ledger,
    pool: PgPool,
    (alarm, progress): (PartitionAlarm, Progress),
    ready: Readiness,
    shutdown: CancellationToken,
) -> Result<()> {
    let gateway = Arc::new(SimulatedGateway::new(config.gateway.clone(), ledger));
    let calls = GatewayCalls::new(gateway, pool.clone(), config.call_limits());
    let participant = Participant::batch("payment", PaymentHandler)
        .calls(calls)
        .topic(topic::PAYMENT_COMMANDS)
        .group(topic::PAYMENT_GROUP)
        .failure_reply(PAYMENT_FAILED)
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
