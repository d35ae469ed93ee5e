//! What happened to a saga, in the past tense: the entries of its log and of `saga.events`.

use super::Cause;
use crate::{
    ids::Timestamp,
    message::{ActionName, DuePart, Fault},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One change of a saga, as it stands in the log and in `saga.events`.
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
    CommandSent {
        #[serde(flatten)]
        part: DuePart,
        command: String,
        participant: String,
    },
    /// Its participant has not consumed it; it neither times out nor is sent again.
    CommandQueued {
        #[serde(flatten)]
        part: DuePart,
    },
    CommandPickedUp {
        #[serde(flatten)]
        part: DuePart,
    },
    StepSucceeded {
        #[serde(flatten)]
        part: DuePart,
    },
    StepFailed {
        #[serde(flatten)]
        part: DuePart,
        fault: Fault,
    },
    StepErrored {
        #[serde(flatten)]
        part: DuePart,
        fault: Fault,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
        retry_at: Option<Timestamp>,
    },
    StepTimedOut {
        #[serde(flatten)]
        part: DuePart,
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
    /// An operator says that it is done; its participant has not done it and never will.
    StepCompleted {
        step: String,
    },
    /// An operator lets the saga go on without it; its participant has not done it and never will.
    StepSkipped {
        step: String,
    },
    /// An operator decided that what the step did stays.
    CompensationSkipped {
        step: String,
    },
    /// A success that came after its step was given up; recorded only.
    LateReply {
        #[serde(flatten)]
        part: DuePart,
    },
    DeadlinePassed,
    ActionDecided {
        action_id: Uuid,
        action: ActionName,
        /// Of an action on one step.
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
    /// An operator ended it as it stood, or skipped one of its compensations.
    Abandoned {
        reason: String,
    },
}

impl LifecycleKind {
    /// The word in `ce_type` after `saga.`, in snake case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
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

/// What became of an operator's action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum ActionVerdict {
    Accepted,
    /// The step concerned may have run: its outcome, which is being asked for, decides.
    Pending,
    Refused {
        code: String,
        message: String,
        /// What could have been asked for instead, such as `retry` or `skip the compensation of reserve-stock`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        legal: Vec<String>,
    },
}
