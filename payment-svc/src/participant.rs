//! Joins the group that handles `payment.commands`.

use crate::{
    Config,
    calls::GatewayCalls,
    gateway::{Ledger, SimulatedGateway},
    handler::PaymentHandler,
};
use anyhow::Result;
use saga_contracts::{
    message_type::{PAYMENT_REFUND, PAYMENT_REFUNDED},
    topic,
};
use saga_messaging::{
    kafka,
    participant::{self, ExternalCalls, ParticipantConfig},
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
    ledger: Ledger,
    pool: PgPool,
    alarm: PartitionAlarm,
    ready: Readiness,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut participant =
        ParticipantConfig::new("payment", topic::PAYMENT_COMMANDS, topic::PAYMENT_GROUP)
            .compensation_reply(PAYMENT_REFUND, PAYMENT_REFUNDED)
            .with_settings(&config.participant)
            .with_partition_alarm(alarm);
    let look = || async { Ok(participant::approve_topics(&participant, &config.kafka).await?) };
    let servers = [Server::kafka(&config.kafka.brokers, kafka::is_away)];
    if until(&servers, &ready, &shutdown, look).await?.is_none() {
        return Ok(());
    }
    ready.ready();
    participant.topics = None;
    let gateway = Arc::new(SimulatedGateway::new(config.gateway.clone(), ledger));
    let calls: Arc<dyn ExternalCalls> = Arc::new(GatewayCalls::new(
        gateway,
        pool.clone(),
        config.call_limits(),
    ));
    let handler = Arc::new(PaymentHandler);
    participant::run(
        participant,
        handler,
        Some(calls),
        pool,
        config.kafka,
        shutdown,
    )
    .await?;
    Ok(())
}
