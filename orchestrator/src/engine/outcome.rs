//! The context of a batch's decisions, and their result.

use super::{decode::Rejected, saga_store::Plan, settings::EngineSettings};
use crate::registry::{Current, Registry};
use saga_core::{
    ids::SagaId,
    instance::ArmedTimer,
    message::{CommandRef, Direction, Input, OutgoingRecord, StartSaga, TimerKind},
    transition::CommandContext,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Everything that the decisions depend on, besides the inputs and the loaded rows.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The definitions that sagas are pinned to.
    pub registry: &'a Registry,
    /// The definitions that new sagas take.
    pub current: &'a Current,
    pub settings: &'a EngineSettings,
    pub command_context: &'a CommandContext,
    /// Offsets of `saga.inputs` that are known to be committed, by partition. Log entries below them may be dropped.
    pub committed: &'a BTreeMap<i32, i64>,
}

/// The result of deciding one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Disposition {
    Applied,
    Redelivered,
    Duplicate,
    /// The input was not applied: its saga is unknown or, for an action, has ended or is at another version.
    Stale,
    DeadLettered,
}

impl Disposition {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Redelivered => "redelivered",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Returns the label of an input's kind in metrics.
pub fn kind_of(input: &Input) -> &'static str {
    match input {
        Input::Start(_) => "start",
        Input::Reply(_) => "reply",
        Input::Timer(_) => "timer",
        Input::Operator(_) => "action",
    }
}

/// The time that a step's command took from being sent to its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    pub definition: String,
    pub step: String,
    pub direction: Direction,
    pub milliseconds: i64,
}

/// A saga that a batch changed, with everything that the timers need to know of the change.
#[derive(Clone, Debug)]
pub struct SagaChange {
    pub id: SagaId,
    pub home_partition: i32,
    /// Empty once the saga has ended.
    pub timers: Vec<ArmedTimer>,
    /// Commands that the batch sends. Their offsets are known once the log has acknowledged them.
    pub sent: Vec<CommandRef>,
    /// Timers that the batch decided, which are no longer outstanding.
    pub handled: Vec<(TimerKind, Option<CommandRef>)>,
    pub ended: bool,
}

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub record: OutgoingRecord,
    /// The saga and the command that the record sends. `None` for an event and for a dead letter.
    pub command: Option<(SagaId, CommandRef)>,
}

impl Output {
    /// Makes the output of a record that is not a command.
    pub fn of(record: OutgoingRecord) -> Self {
        Self {
            record,
            command: None,
        }
    }
}

/// Everything that results from a batch.
#[derive(Debug, Default)]
pub struct BatchOutcome {
    pub plan: Plan,
    /// Commands first, then events. The records of one saga are in order.
    pub outputs: Vec<Output>,
    pub rejected: Vec<Rejected>,
    pub changed: Vec<SagaChange>,
    pub dispositions: BTreeMap<(&'static str, Disposition), u64>,
    pub step_times: Vec<StepTime>,
    pub transitions: u64,
}

/// Returns the SHA-256 of the fields by which two starts are the same: definition, type, business key and input.
pub fn start_hash(start: &StartSaga) -> Vec<u8> {
    let mut hash = Sha256::new();
    let parts = [
        start.definition.as_str(),
        start.start_type.as_str(),
        start.business_key.as_deref().unwrap_or_default(),
        &start.input.to_string(),
    ];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_vec()
}
