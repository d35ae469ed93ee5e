//! How a participant runs.

use super::{ParticipantSettings, TopicExpectations, inbox};
use crate::{kafka::ReaderOptions, partition::PartitionAlarm, rule::RuleSettings};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Where the orchestrator reads, unless a configuration says otherwise.
const DEFAULT_REPLY_TOPIC: &str = "saga.inputs";
/// The orchestrator's consumer group.
const DEFAULT_REPLY_GROUP: &str = "orchestrator";
/// Half of what order-svc allows.
const DEFAULT_REPLY_BACKLOG: Duration = Duration::from_millis(375);
const DEFAULT_HANDLER_TIMEOUT: Duration = Duration::from_secs(5);
/// A week without upkeep before the barrier has nowhere to write.
const DEFAULT_PARTITIONS_AHEAD_DAYS: u32 = 7;

#[derive(Clone, Debug)]
pub struct ParticipantConfig {
    /// `inventory`; in metrics and logs.
    pub name: String,
    /// `inventory.commands`.
    pub topic: String,
    /// The consumer group, by which the orchestrator tells what has been picked up.
    pub group: String,
    /// `ce_source` of replies.
    pub source: String,
    pub rule: RuleSettings,
    pub reader: ReaderOptions,
    /// How long a handler may take, and each of its statements.
    pub handler_timeout: Duration,
    /// The reply's type by compensation command type (`inventory.release` → `inventory.released`), for compensations
    /// of what was never done; `<command type>.done` where nothing stands here.
    pub compensation_replies: BTreeMap<String, String>,
    /// Topics that a command may want its reply in. A command that names another is dead-lettered: a topic that does
    /// not exist would stop the participant.
    pub reply_topics: BTreeSet<String>,
    /// The group that reads replies.
    pub reply_group: String,
    /// While commands are late that the participant picks up, no more may wait for whoever reads replies than is read in
    /// this time; zero for no such bound.
    pub reply_backlog: Duration,
    /// Days for which barrier partitions are made ahead.
    pub partitions_ahead_days: u32,
    /// Raised while the barrier lacks a partition that somebody needs. Shared with `/health`, and with whoever else
    /// writes into the barrier.
    pub partition_alarm: PartitionAlarm,
    /// What the topics must be like for the participant to start; `None` leaves them unchecked.
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
            name,
            topic: topic.into(),
            group: group.into(),
            rule: RuleSettings::default(),
            reader: ReaderOptions::default(),
            handler_timeout: DEFAULT_HANDLER_TIMEOUT,
            compensation_replies: BTreeMap::new(),
            reply_topics: BTreeSet::from([DEFAULT_REPLY_TOPIC.to_owned()]),
            reply_group: DEFAULT_REPLY_GROUP.to_owned(),
            reply_backlog: DEFAULT_REPLY_BACKLOG,
            partitions_ahead_days: DEFAULT_PARTITIONS_AHEAD_DAYS,
            partition_alarm: inbox::alarm(),
            topics: None,
        }
    }

    /// As the service's configuration says.
    #[must_use]
    pub fn with_settings(mut self, settings: &ParticipantSettings) -> Self {
        self.rule = settings.rule();
        self.topics = Some(settings.topics());
        self.reply_backlog = settings.reply_backlog();
        self
    }

    /// With an alarm that the service knows.
    #[must_use]
    pub fn with_partition_alarm(mut self, alarm: PartitionAlarm) -> Self {
        self.partition_alarm = alarm;
        self
    }

    /// What the compensation `command_type` answers when there was nothing to compensate.
    #[must_use]
    pub fn compensation_reply(
        mut self,
        command_type: impl Into<String>,
        reply_type: impl Into<String>,
    ) -> Self {
        self.compensation_replies
            .insert(command_type.into(), reply_type.into());
        self
    }
}
