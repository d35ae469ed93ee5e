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
    participant::{self, ParticipantConfig},
    partition::PartitionAlarm,
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`. A broker that is away is waited for; topics that are not as they must be end it.
pub async fn run(
    config: Config,
    handler: OrderParticipant,
    pool: PgPool,
    alarm: PartitionAlarm,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut participant =
        ParticipantConfig::new("order", topic::ORDER_COMMANDS, topic::ORDER_GROUP)
            .compensation_reply(ORDER_CANCEL, ORDER_CANCELLED)
            .with_settings(&config.participant)
            .with_partition_alarm(alarm);
    SOURCE.clone_into(&mut participant.source);
    participant::run(
        participant,
        Arc::new(handler),
        None,
        pool,
        config.kafka,
        stop,
    )
    .await
    .context("order.commands cannot be consumed")
}
