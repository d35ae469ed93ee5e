//! A saga instance: everything the orchestrator knows of one running saga, and its log.

mod lifecycle;
mod unchanging;

pub use lifecycle::{ActionVerdict, LifecycleEvent, LifecycleKind};
pub use unchanging::Unchanging;

use crate::{
    definition::DefinitionHash,
    ids::{SagaId, Timestamp},
    message::{ActionName, Direction, DuePart, Fault, OperatorAction, Trace, Verdict},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Where an input stood in `saga.inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// Direction of a whole saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Running,
    Compensating,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum SagaStatus {
    Running,
    Compensating,
    /// Needs a person: which step, why, and what it was doing.
    Parked {
        step: String,
        reason: Fault,
        phase: Phase,
    },
    Completed,
    Compensated,
    /// An operator ended it, or skipped one of its compensations.
    Abandoned {
        reason: String,
    },
}

impl SagaStatus {
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Completed | Self::Compensated | Self::Abandoned { .. } => true,
            Self::Running | Self::Compensating | Self::Parked { .. } => false,
        }
    }

    /// Where the saga is heading, or was when it ended forward or was abandoned.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Compensating | Self::Compensated => Phase::Compensating,
            Self::Parked { phase, .. } => *phase,
            Self::Running | Self::Completed | Self::Abandoned { .. } => Phase::Running,
        }
    }

    /// The word in tables, URLs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Parked { .. } => "parked",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Abandoned { .. } => "abandoned",
        }
    }
}

/// Whether the participant's group has been seen to consume a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PickUp {
    /// Not looked at yet.
    Unseen,
    /// Looked at when its first timer fell due: not consumed, since then.
    Queued { since: Timestamp },
    /// Seen consumed at this instant, from which the attempt's timeout runs.
    Seen { at: Timestamp },
}

/// A command on its way, or between two attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "delivery", rename_all = "snake_case")]
pub enum Delivery {
    InFlight {
        attempt: u32,
        sent_at: Timestamp,
        due_at: Timestamp,
        pick_up: PickUp,
    },
    BackingOff {
        attempt: u32,
        until: Timestamp,
        fault: Fault,
    },
    /// Attempts are used up; the saga is parked on it.
    UsedUp { attempt: u32, fault: Fault },
}

impl Delivery {
    pub fn attempt(&self) -> u32 {
        match self {
            Self::InFlight { attempt, .. }
            | Self::BackingOff { attempt, .. }
            | Self::UsedUp { attempt, .. } => *attempt,
        }
    }

    /// Why a person is needed, if one is.
    pub fn used_up(&self) -> Option<&Fault> {
        match self {
            Self::UsedUp { fault, .. } => Some(fault),
            Self::InFlight { .. } | Self::BackingOff { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    /// The forward command.
    Running(Delivery),
    /// The outcome is being asked for: the pivot's before the saga may turn round, or that of any step that an operator
    /// wants to complete or to skip.
    Resolving(Delivery),
    Succeeded,
    /// A business answer; nothing was done.
    Failed {
        fault: Fault,
    },
    /// Resolve answered: not done, and never will be.
    NotDone,
    /// No answer in all attempts; compensated like a done one.
    Unknown,
    Compensating(Delivery),
    Compensated,
    /// Its compensation is owed, but an operator decided that it will not be made.
    CompensationSkipped {
        reason: String,
    },
    /// Not done, and never will be: the saga turned round before it, or an operator skipped it.
    Skipped,
}

impl StepState {
    /// The command on its way, if there is one, and which.
    pub fn delivery(&self) -> Option<(Direction, &Delivery)> {
        match self {
            Self::Running(delivery) => Some((Direction::Forward, delivery)),
            Self::Resolving(delivery) => Some((Direction::Resolve, delivery)),
            Self::Compensating(delivery) => Some((Direction::Compensation, delivery)),
            Self::Waiting
            | Self::Succeeded
            | Self::Failed { .. }
            | Self::NotDone
            | Self::Unknown
            | Self::Compensated
            | Self::CompensationSkipped { .. }
            | Self::Skipped => None,
        }
    }

    /// Whether nothing of the step is done or will be, as far as the saga has a say in it.
    pub fn is_clear(&self) -> bool {
        match self {
            Self::Failed { .. }
            | Self::NotDone
            | Self::Compensated
            | Self::CompensationSkipped { .. }
            | Self::Skipped => true,
            Self::Waiting
            | Self::Running(_)
            | Self::Resolving(_)
            | Self::Succeeded
            | Self::Unknown
            | Self::Compensating(_) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepInstance {
    #[serde(flatten)]
    pub state: StepState,
    /// What the forward command answered, if it was not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Unchanging<Value>>,
    /// The attempt from which the policy's attempts are counted: an operator's retry counts anew.
    #[serde(default = "first_attempt", skip_serializing_if = "is_first_attempt")]
    pub counted_from: u32,
    /// Given up without an answer. A late success is recorded once, and clears this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// What an operator's retry sends instead of what the definition makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Corrected>,
    /// What becomes of the step once it is known not to have been done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<Settling>,
}

/// The payload that an operator gave for one of a step's commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrected {
    pub direction: Direction,
    pub payload: Value,
}

/// An operator's complete or skip of a step that may have run, until its participant has said whether it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settling {
    pub asked: PendingAction,
    pub settlement: Settlement,
}

/// What an operator makes of a step that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "settlement", rename_all = "snake_case")]
pub enum Settlement {
    /// It counts as done, with this result.
    Completed { result: Value },
    /// The saga goes on without it.
    Skipped,
}

impl StepInstance {
    pub fn new(state: StepState) -> Self {
        Self {
            state,
            result: None,
            counted_from: first_attempt(),
            unanswered: false,
            corrected: None,
            settling: None,
        }
    }
}

fn first_attempt() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_first_attempt(attempt: &u32) -> bool {
    *attempt == first_attempt()
}

/// The first failure applied, or what else made the saga turn round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Cause {
    /// `None` for a deadline or a cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub code: String,
    pub message: String,
}

impl Cause {
    /// A cause that is no step's.
    pub fn of_saga(code: &str, message: impl Into<String>) -> Self {
        Self {
            step: None,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    pub fn of_step(step: &str, fault: &Fault) -> Self {
        Self {
            step: Some(step.to_owned()),
            code: fault.code.clone(),
            message: fault.message.clone(),
        }
    }
}

/// An action that was answered [`ActionVerdict::Pending`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAction {
    pub action_id: Uuid,
    pub action: ActionName,
    pub actor: String,
    pub reason: String,
}

/// The whole state of one saga. Everything the decisions need stands here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SagaInstance {
    pub id: SagaId,
    pub definition: String,
    pub definition_version: u32,
    pub definition_hash: DefinitionHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    pub trace: Trace,
    /// Partition of `saga.inputs` that orders this saga's inputs.
    pub home_partition: i32,
    pub started_at: Timestamp,
    pub deadline_at: Timestamp,
    /// The deadline has fallen due and was acted on, which it is once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// When `status` or any step last changed.
    pub changed_at: Timestamp,
    #[serde(flatten)]
    pub status: SagaStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why the pivot's outcome is being asked for; becomes the cause if it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_cause: Option<Cause>,
    /// Cancels and compensates that the pivot's outcome will decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_turns: Vec<PendingAction>,
    pub input: Unchanging<Value>,
    /// In the definition's order.
    pub steps: Vec<StepInstance>,
    /// Of the last lifecycle event.
    pub sequence: u64,
    pub log: Vec<Unchanging<LogEntry>>,
}

/// What one input did. Its events are kept so that a redelivery of the input sends the same ones again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    #[serde(flatten)]
    pub position: Position,
    pub events: Vec<LifecycleEvent>,
}

/// A timer that must be armed for a saga as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmedTimer {
    pub due_at: Timestamp,
    pub kind: crate::message::TimerKind,
    /// `None` for the deadline.
    pub part: Option<DuePart>,
    /// Whose offsets tell whether the command was picked up; `None` if that does not matter.
    pub participant: Option<String>,
    /// When the command in flight was sent.
    pub sent_at: Option<Timestamp>,
    /// What the row already knows; a timer with the same verdict need not be produced again.
    pub known: Option<Verdict>,
}

/// Why a saga is not moving, as far as its row tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// See [`WaitingOn::kind`].
    pub kind: &'static str,
    pub participant: Option<String>,
    pub attempt: Option<u32>,
    pub since: Timestamp,
}

/// Why a saga is not moving, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingOn {
    /// For programs: `reply`, `queued`, `backoff`, `resolve`, `person`, `nothing`.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    pub since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// One sentence for a person.
    pub text: String,
}

/// Kept here so that the store can find out what an action's audit row needs.
pub type DecidedAction = (OperatorAction, ActionVerdict);

#[cfg(test)]
mod tests;
