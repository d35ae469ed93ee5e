//! The events of a saga, in the past tense: the entries of its log and of `saga.events`.

use super::cause::Cause;
use crate::{
    ids::Timestamp,
    message::{ActionName, CommandRef, Fault},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One change of a saga, as it is in the log and in `saga.events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LifecycleEvent {
    pub sequence: u64,
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    #[serde(flatten)]
    pub kind: LifecycleKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum LifecycleKind {
    Started,
    /// The saga's start was sent again, and the orchestrator did not know the saga any more. The event numbers start
    /// anew, far above those that the saga may have used before.
    Recovered,
    CommandSent {
        #[serde(flatten)]
        part: CommandRef,
        command: String,
        participant: String,
    },
    /// The participant has not consumed the command; it neither times out nor is sent again.
    CommandQueued {
        #[serde(flatten)]
        part: CommandRef,
    },
    CommandPickedUp {
        #[serde(flatten)]
        part: CommandRef,
    },
    StepSucceeded {
        #[serde(flatten)]
        part: CommandRef,
    },
    StepFailed {
        #[serde(flatten)]
        part: CommandRef,
        fault: Fault,
    },
    StepErrored {
        #[serde(flatten)]
        part: CommandRef,
        fault: Fault,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        retry_at: Option<Timestamp>,
    },
    StepTimedOut {
        #[serde(flatten)]
        part: CommandRef,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        retry_at: Option<Timestamp>,
    },
    /// The pivot's outcome is unknown and is being asked for, with the reason.
    ResolveStarted {
        step: String,
        cause: Cause,
    },
    StepNotDone {
        step: String,
    },
    CompensationStarted {
        cause: Cause,
    },
    StepCompensated {
        step: String,
    },
    /// An operator declared the step done; its participant has not done it and never will.
    StepCompleted {
        step: String,
    },
    /// An operator skipped the step; its participant has not done it and never will.
    StepSkipped {
        step: String,
    },
    /// An operator decided that the step is not compensated.
    CompensationSkipped {
        step: String,
    },
    /// A success came after its step was given up. It is only recorded.
    LateReply {
        #[serde(flatten)]
        part: CommandRef,
    },
    DeadlinePassed,
    ActionDecided {
        action_id: Uuid,
        action: ActionName,
        /// The step, if the action is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        actor: String,
        reason: String,
        verdict: ActionVerdict,
    },
    Parked {
        step: String,
        reason: Fault,
    },
    Unparked {
        step: String,
    },
    Completed,
    Compensated {
        cause: Cause,
    },
    /// An operator ended the saga in its current state, or skipped one of its compensations.
    Abandoned {
        reason: String,
    },
}

impl LifecycleKind {
    /// Returns the word after `saga.` in `ce_type`, in snake case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Recovered => "recovered",
            Self::CommandSent { .. } => "command_sent",
            Self::CommandQueued { .. } => "command_queued",
            Self::CommandPickedUp { .. } => "command_picked_up",
            Self::StepSucceeded { .. } => "step_succeeded",
            Self::StepFailed { .. } => "step_failed",
            Self::StepErrored { .. } => "step_errored",
            Self::StepTimedOut { .. } => "step_timed_out",
            Self::ResolveStarted { .. } => "resolve_started",
            Self::StepNotDone { .. } => "step_not_done",
            Self::CompensationStarted { .. } => "compensation_started",
            Self::StepCompensated { .. } => "step_compensated",
            Self::StepCompleted { .. } => "step_completed",
            Self::StepSkipped { .. } => "step_skipped",
            Self::CompensationSkipped { .. } => "compensation_skipped",
            Self::LateReply { .. } => "late_reply",
            Self::DeadlinePassed => "deadline_passed",
            Self::ActionDecided { .. } => "action_decided",
            Self::Parked { .. } => "parked",
            Self::Unparked { .. } => "unparked",
            Self::Completed => "completed",
            Self::Compensated { .. } => "compensated",
            Self::Abandoned { .. } => "abandoned",
        }
    }
}

/// The decision about an operator's action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum ActionVerdict {
    Accepted {
        /// The risk that the operator takes, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
    },
    /// The step concerned may have run. Its outcome is being asked for, and decides.
    Pending,
    Refused {
        code: String,
        message: String,
        /// The actions that are legal instead, such as `retry` or `skip the compensation of reserve-stock`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        legal: Vec<String>,
    },
}

impl ActionVerdict {
    /// The verdict without a warning.
    pub const ACCEPTED: Self = Self::Accepted { warning: None };
}
