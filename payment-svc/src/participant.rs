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
    participant::{self, ExternalCalls, ParticipantConfig},
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
    ledger: Ledger,
    pool: PgPool,
    alarm: PartitionAlarm,
    ready: Readiness,
    shutdown: CancellationToken,
) -> Result<()> {
    let participant =
        ParticipantConfig::new("payment", topic::PAYMENT_COMMANDS, topic::PAYMENT_GROUP)
            .compensation_reply(PAYMENT_REFUND, PAYMENT_REFUNDED)
            .with_settings(&config.participant)
            .with_partition_alarm(alarm);
    let nothing_more = || async { Ok(()) };
    let approved = approved(participant, &config.kafka, &ready, &shutdown, nothing_more);
    let Some(participant) = approved.await? else {
        return Ok(());
    };
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
