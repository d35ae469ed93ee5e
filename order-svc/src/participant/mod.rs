//! Joins the group that handles `order.commands`.

mod handler;

pub use handler::OrderParticipant;

use crate::{Config, SOURCE};
use anyhow::Context;
use saga_contracts::{
    message_type::{ORDER_CANCEL, ORDER_CANCELLED},
    topic,
};
use saga_messaging::{
    kafka::KafkaConfig,
    participant::{self, ParticipantConfig},
    partition::PartitionAlarm,
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What it is, and what its topics must be like.
pub fn settings(config: &Config, alarm: PartitionAlarm) -> ParticipantConfig {
    let mut participant =
        ParticipantConfig::new("order", topic::ORDER_COMMANDS, topic::ORDER_GROUP)
            .compensation_reply(ORDER_CANCEL, ORDER_CANCELLED)
            .with_settings(&config.participant)
            .with_partition_alarm(alarm);
    SOURCE.clone_into(&mut participant.source);
    participant
}

/// Runs until `stop`.
pub async fn run(
    participant: ParticipantConfig,
    handler: OrderParticipant,
    pool: PgPool,
    kafka: KafkaConfig,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    participant::run(participant, Arc::new(handler), None, pool, kafka, stop)
        .await
        .context("order.commands cannot be consumed")
}
