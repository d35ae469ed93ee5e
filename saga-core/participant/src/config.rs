//! A participant's configuration.

use super::{ParticipantSettings, TopicExpectations, inbox};
use saga_core::message::topic::{ORCHESTRATOR_GROUP, SAGA_INPUTS};
use saga_messaging::{
    consumer::ConsumerSettings, kafka::ReaderOptions, partition::PartitionAlarm, progress::Progress,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Half of the backlog that order-svc allows.
const DEFAULT_REPLY_BACKLOG: Duration = Duration::from_millis(375);
const DEFAULT_HANDLER_TIMEOUT: Duration = Duration::from_secs(5);
/// Upkeep can fail for a week before the barrier lacks a partition to write to.
const DEFAULT_PARTITIONS_AHEAD_DAYS: u32 = 7;

#[derive(Clone, Debug)]
pub struct ParticipantConfig {
    /// The participant's name in metrics and logs, such as `inventory`.
    pub name: String,
    /// The topic of its commands, such as `inventory.commands`.
    pub topic: String,
    /// The consumer group, whose offsets show the orchestrator which commands were picked up.
    pub group: String,
    /// The `ce_source` of replies.
    pub source: String,
    pub consumer: ConsumerSettings,
    pub reader: ReaderOptions,
    /// Longest time for a handler, and for each of its statements.
    pub handler_timeout: Duration,
    /// The type of the reply to a command that succeeded, by the command's type (`inventory.release` →
    /// `inventory.released`). A type that is missing here gets `<command type>.done`.
    pub reply_types: BTreeMap<String, String>,
    /// The type of the reply to a command that was refused.
    pub failure_reply: String,
    /// The topics in which a command may ask for its reply. A command that names another topic is dead-lettered: a
    /// topic that does not exist would stop the participant.
    pub reply_topics: BTreeSet<String>,
    /// The group that reads replies.
    pub reply_group: String,
    /// While the participant catches up on late commands, it throttles so that the input lag of `reply_group` stays
    /// below this much reading time. Zero disables the throttle.
    pub reply_backlog: Duration,
    /// Number of days for which barrier partitions are created ahead.
    pub partitions_ahead_days: u32,
    /// The alarm that is raised while the barrier lacks a partition. It is shared with `/health` and with other writers
    /// to the barrier.
    pub partition_alarm: PartitionAlarm,
    /// The time since which a batch has been unfinished. It is shared with `/health`.
    pub progress: Progress,
    /// Requirements that the topics must meet before the participant starts; `None` leaves the topics unchecked.
    pub topics: Option<TopicExpectations>,
}

impl ParticipantConfig {
    pub fn new(
        name: impl Into<String>,
        topic: impl Into<String>,
        group: impl Into<String>,
    ) -> Self {
        let name = name.into();
        Self {
            source: format!("/{name}"),
            failure_reply: format!("{name}.failed"),
            name,
            topic: topic.into(),
            group: group.into(),
            consumer: ConsumerSettings::default(),
            reader: ReaderOptions::default(),
            handler_timeout: DEFAULT_HANDLER_TIMEOUT,
            reply_types: BTreeMap::new(),
            reply_topics: BTreeSet::from([SAGA_INPUTS.to_owned()]),
            reply_group: ORCHESTRATOR_GROUP.to_owned(),
            reply_backlog: DEFAULT_REPLY_BACKLOG,
            partitions_ahead_days: DEFAULT_PARTITIONS_AHEAD_DAYS,
            partition_alarm: inbox::alarm(),
            progress: Progress::default(),
            topics: None,
        }
    }

    /// Applies the service's settings.
    #[must_use]
    pub fn with_settings(mut self, settings: &ParticipantSettings) -> Self {
        self.consumer = settings.consumer();
        self.topics = Some(settings.topics());
        self.reply_backlog = settings.reply_backlog();
        self
    }

    /// Sets the type of the reply to a `command_type` that succeeded.
    #[must_use]
    pub fn reply_type(
        mut self,
        command_type: impl Into<String>,
        reply_type: impl Into<String>,
    ) -> Self {
        self.reply_types
            .insert(command_type.into(), reply_type.into());
        self
    }

    /// Returns the type of the reply to a command that succeeded.
    pub(crate) fn success_reply(&self, command_type: &str) -> String {
        let configured = self.reply_types.get(command_type);
        configured.map_or_else(|| format!("{command_type}.done"), Clone::clone)
    }
}
