//! A call on its way: the job, the call's result, and the replies that wait for their acknowledgment.

use crate::{
    CallOutcome,
    barrier::RowKey,
    intent::{Intent, IntentState},
};
use saga_core::message::{Command, Direction, OutgoingRecord};

/// A call to make.
#[derive(Clone, Debug)]
pub struct Job {
    pub key: RowKey,
    pub generation: i32,
    pub command: Command,
}

impl Job {
    pub(crate) fn new(key: RowKey, intent: &Intent) -> Self {
        Self {
            key,
            generation: intent.generation,
            command: intent.command.clone(),
        }
    }

    /// Returns `<saga>/<step>/<direction>/<generation>`.
    pub fn idempotency_key(&self) -> String {
        let Self {
            key, generation, ..
        } = self;
        format!(
            "{}/{}/{}/{generation}",
            key.saga_id, key.step, key.direction
        )
    }

    pub(crate) fn identity(&self) -> (RowKey, i32) {
        (self.key.clone(), self.generation)
    }
}

/// A call that has returned.
#[derive(Clone, Debug)]
pub struct CallResult {
    pub job: Job,
    pub outcome: CallOutcome,
}

impl CallResult {
    pub(super) fn is_for(&self, intent: &Intent) -> bool {
        intent.generation == self.job.generation && intent.state == IntentState::Open
    }

    pub(super) fn direction(&self) -> Direction {
        self.job.key.direction
    }
}

/// Replies to publish; once they are acknowledged, their intents may be closed.
#[derive(Debug, Default)]
#[must_use = "publish the records, then hand it to OpenCalls::acked"]
pub struct PendingReplies {
    pub records: Vec<OutgoingRecord>,
    pub(super) intents: Vec<PublishedIntent>,
}

/// An intent in the state in which its replies were published. If its call was opened again and settled since, the
/// intent has other replies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedIntent {
    pub key: RowKey,
    pub generation: i32,
    /// The intent was settled, which is final.
    pub is_final: bool,
}

impl PublishedIntent {
    pub(super) fn of(key: &RowKey, intent: &Intent) -> Self {
        Self {
            key: key.clone(),
            generation: intent.generation,
            is_final: intent.state == IntentState::Settled,
        }
    }
}
