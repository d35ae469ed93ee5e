//! A saga instance: everything that the orchestrator knows about one saga, and the saga's log.

mod cause;
mod lifecycle;
mod lifecycle_message;
mod shared_json;

pub use cause::Cause;
pub use lifecycle::{ActionVerdict, LifecycleEvent, LifecycleKind};
pub use lifecycle_message::LifecycleMessage;
pub use shared_json::SharedJson;

use crate::{
    definition::DefinitionHash,
    ids::{SagaId, Timestamp},
    message::{ActionName, CommandRef, Direction, Fault, OperatorAction, PickUpStatus, Trace},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The position of an input in `saga.inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
    /// The record's own time. It distinguishes positions in a recreated topic, which has the same offsets again.
    pub at_ms: i64,
}

/// The direction of a whole saga.
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
    /// The saga needs a person. It is parked on `step`, for this reason; `phase` is the saga's direction.
    Parked {
        step: String,
        reason: Fault,
        phase: Phase,
    },
    Completed,
    Compensated,
    /// An operator ended the saga, or skipped one of its compensations.
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

    /// Returns the step on which the saga is parked, and the reason. `None` if the saga does not need a person.
    pub fn parked(&self) -> Option<(&str, &Fault)> {
        if let Self::Parked { step, reason, .. } = self {
            Some((step, reason))
        } else {
            None
        }
    }

    /// Returns the saga's direction. A completed or abandoned saga counts as `Running`, a compensated one as
    /// `Compensating`.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Compensating | Self::Compensated => Phase::Compensating,
            Self::Parked { phase, .. } => *phase,
            Self::Running | Self::Completed | Self::Abandoned { .. } => Phase::Running,
        }
    }

    /// Returns the word in tables, URLs and metrics.
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

/// Says whether the participant's group was seen to have consumed a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PickUp {
    /// The command was not looked at yet.
    Unseen,
    /// The command was not consumed when its first timer fell due; it has been queued since this instant.
    Queued { since: Timestamp },
    /// The command was seen consumed at this instant, from which the attempt's timeout runs.
    Seen { at: Timestamp },
}

/// A command in flight, between two attempts, or given up.
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
    /// All attempts are used up; the saga is parked on the command.
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

    /// Returns why the command needs a person, or `None` if it does not.
    pub fn used_up(&self) -> Option<&Fault> {
        if let Self::UsedUp { fault, .. } = self {
            Some(fault)
        } else {
            None
        }
    }

    /// Returns the fault of the last attempt, or `None` while an attempt is in flight.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::BackingOff { fault, .. } | Self::UsedUp { fault, .. } => Some(fault),
            Self::InFlight { .. } => None,
        }
    }

    /// Returns when the attempt in flight was sent, or `None` if none is.
    pub fn sent_at(&self) -> Option<Timestamp> {
        if let Self::InFlight { sent_at, .. } = self {
            Some(*sent_at)
        } else {
            None
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    /// The forward command is in flight, backing off or used up.
    Running(Delivery),
    /// The outcome is being asked for: the pivot's, before the saga may start compensating, or that of any step that an
    /// operator wants to complete or skip.
    Resolving(Delivery),
    Succeeded,
    /// The participant's business answer was a failure; the step had no effect.
    Failed {
        fault: Fault,
    },
    /// The answer to a resolve: the step was not done and never will be.
    NotDone,
    /// The step was given up without an answer. It is compensated like a done step.
    Unknown,
    Compensating(Delivery),
    Compensated,
    /// A compensation is owed, but an operator decided that it will not be made.
    CompensationSkipped {
        reason: String,
    },
    /// The step is not done and never will be: the saga started compensating before it, or an operator skipped it.
    Skipped,
}

impl StepState {
    /// Returns the command that the step is waiting for, with its direction.
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

    /// Returns true if the step is done, or counts as done because its outcome is unknown.
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Unknown)
    }

    /// Returns true if a command of the step may have been sent: the step neither waits nor was skipped.
    pub fn was_started(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Skipped)
    }

    /// Returns true if the step has no effect that the saga would still compensate.
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
    /// The payload of the forward command's success, if it was not `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SharedJson<Value>>,
    /// The attempt from which the policy's attempts are counted: an operator's retry restarts the count.
    #[serde(default = "first_attempt", skip_serializing_if = "is_first_attempt")]
    pub counted_from: u32,
    /// When the saga began to wait for the current command, whichever attempt is current. `None` if it waits for no
    /// command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
    /// True if the step was given up without an answer. A late success is recorded once, and clears this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// The payload that an operator's retry sends instead of the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Corrected>,
    /// An operator's decision that takes effect once the step is known not to have been done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<Settling>,
}

/// The payload that an operator gave for one of a step's commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corrected {
    pub direction: Direction,
    pub payload: Value,
}

/// An operator's complete or skip of a step that may have run. It is pending until the participant answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settling {
    /// `None` once the action was refused because the participant does not answer. The settlement still applies if it
    /// does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<PendingAction>,
    pub settlement: Settlement,
}

/// An operator's decision about a step that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "settlement", rename_all = "snake_case")]
pub enum Settlement {
    /// The step counts as done, with this result.
    Completed { result: Value },
    /// The saga goes on without the step.
    Skipped,
}

impl StepInstance {
    pub fn new(state: StepState) -> Self {
        Self {
            state,
            result: None,
            counted_from: first_attempt(),
            waiting_since: None,
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

/// An action that was answered with [`ActionVerdict::Pending`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAction {
    pub action_id: Uuid,
    pub action: ActionName,
    pub actor: String,
    pub reason: String,
}

/// The whole state of one saga. Every decision is made from this state and its input alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SagaInstance {
    pub id: SagaId,
    pub definition: String,
    pub definition_version: u32,
    pub definition_hash: DefinitionHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    pub trace: Trace,
    /// The partition of `saga.inputs` that orders this saga's inputs.
    pub home_partition: i32,
    pub started_at: Timestamp,
    pub deadline_at: Timestamp,
    /// True once the deadline has passed and was acted on, which happens once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// True if the saga was recovered after its state was lost: steps that have not begun may have run before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// The time of the last change of `status` or of any step.
    pub changed_at: Timestamp,
    #[serde(flatten)]
    pub status: SagaStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The reason for resolving the pivot. It becomes the cause if the pivot was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_cause: Option<Cause>,
    /// Cancels and compensates that wait for the pivot's outcome.
    #[serde(
        rename = "pending_turns",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pending_reversals: Vec<PendingAction>,
    pub input: SharedJson<Value>,
    /// In the definition's order.
    pub steps: Vec<StepInstance>,
    /// The number of the last lifecycle event.
    pub sequence: u64,
    pub log: Vec<SharedJson<LogEntry>>,
}

/// The events of one input. They are kept so that a redelivery of the input sends the same events again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    #[serde(flatten)]
    pub position: Position,
    pub events: Vec<LifecycleEvent>,
}

/// A timer that must be armed for a saga in its current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmedTimer {
    pub due_at: Timestamp,
    pub kind: crate::message::TimerKind,
    /// `None` for the deadline.
    pub part: Option<CommandRef>,
    /// The participant whose committed offset shows that the command was picked up; `None` if that is not needed.
    pub participant: Option<String>,
    /// When the command in flight was sent.
    pub sent_at: Option<Timestamp>,
    /// The verdict that the row has recorded; a timer with the same verdict need not be produced again.
    pub known: Option<PickUpStatus>,
}

/// Says why a saga is not moving, as far as its row shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// See [`WaitingOn::kind`].
    pub kind: &'static str,
    pub participant: Option<String>,
    pub attempt: Option<u32>,
    pub since: Timestamp,
}

/// Says why a saga is not moving, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingOn {
    /// A word for programs: `reply`, `queued`, `backoff`, `resolve`, `person`, `nothing`.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When the step began to wait, not when its newest attempt was sent.
    pub since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// One sentence for a person.
    pub text: String,
}

/// A decided action with its verdict. The type is here so that the store can write the action's audit row.
pub type DecidedAction = (OperatorAction, ActionVerdict);

#[cfg(test)]
mod tests;
