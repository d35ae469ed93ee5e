//! The participant in the consumer group that handles `order.commands`.

mod handler;

pub use handler::OrderParticipant;

use crate::{
    config::Config,
    intake::{start::SOURCE, waiting::Waiters},
};
use saga_contracts::{message_type::ORDER_REFUSED, topic};
use saga_messaging::{partition::PartitionAlarm, progress::Progress};
use saga_participant::{Participant, batch::Batch};
use std::sync::Arc;

/// Returns the participant, with the requirements for its topics.
pub fn participant(
    config: &Config,
    waiters: Arc<Waiters>,
    alarm: PartitionAlarm,
    progress: Progress,
) -> Participant<Batch<OrderParticipant>> {
    Participant::batch("order", OrderParticipant { waiters })
        .topic(topic::ORDER_COMMANDS)
        .group(topic::ORDER_GROUP)
        .source(SOURCE)
        .failure_reply(ORDER_REFUSED)
        .settings(&config.participant)
        .partition_alarm(alarm)
        .progress(progress)
}
