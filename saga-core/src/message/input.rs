//! The inputs that can move a saga. All of them come through one topic, `saga.inputs`.

use super::{
    Direction, Fault, Headers, Outcome, Trace,
    record::{
        DecodeError, IncomingRecord, OutgoingRecord, beginning, cloud_event, header, json, trace_of,
    },
};
use crate::ids::{SagaId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::{self, Display};
use uuid::Uuid;

/// A decoded input of the orchestrator.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Start(StartSaga),
    Reply(Reply),
    Timer(TimerDue),
    Operator(OperatorAction),
}

/// The start of a saga. The starter chooses the id; a second start with the same id and other content is a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartSaga {
    pub saga_id: SagaId,
    /// The business event that starts the saga, as `ce_type`, such as `order.created`.
    pub start_type: String,
    /// The name of the definition; its highest registered version is used.
    pub definition: String,
    pub business_key: Option<String>,
    /// A JSON object.
    pub input: Value,
    pub trace: Trace,
}

/// A participant's reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub saga_id: SagaId,
    pub step: String,
    /// `Forward` or `Compensation`. Only a `not_done` or an `error` may have `Resolve`: any other answer to a resolve
    /// is the forward command's own saved reply.
    pub direction: Direction,
    pub attempt: u32,
    /// The `ce_type`, such as `inventory.reserved`.
    pub reply_type: String,
    pub outcome: Outcome,
    /// The result of a success, or the [`Fault`] of a failure or an error.
    pub payload: Value,
    pub trace: Trace,
}

/// The kind of a timer.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// A command in flight has no answer.
    Timeout,
    /// A retry's delay is over.
    Backoff,
    /// The saga's deadline.
    Deadline,
}

/// Identifies the attempt of a command that a timer is about.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandRef {
    pub step: String,
    pub direction: Direction,
    pub attempt: u32,
}

/// The state of a command in flight when its timer falls due. It is decided before the timer is produced, so that
/// applying the timer depends on nothing outside the log.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", schema(as = Verdict))]
pub enum PickUpStatus {
    /// The participant's group has not consumed the command: it neither times out nor is sent again.
    Queued,
    /// The group's committed offset is beyond the command: the attempt's timeout runs from when that was seen.
    PickedUp,
    /// The command was seen picked up a whole timeout ago. This differs from [`Self::PickedUp`], so that neither a
    /// duplicate nor a redelivery of the timer that saw the pick-up ends the attempt, however late it comes. Timers
    /// that are not about a command in flight have this verdict, too.
    Unanswered,
    /// The command's record no longer exists and was not consumed: the command is sent again, without spending an
    /// attempt.
    Gone,
    /// Offsets cannot be read; treated as queued.
    Unknown,
}

/// A timer. The owner of the saga's home partition produces it to that partition, behind every reply that was there
/// first.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimerDue {
    pub saga_id: SagaId,
    pub kind: TimerKind,
    /// `None` for the deadline.
    pub part: Option<CommandRef>,
    pub verdict: PickUpStatus,
    /// When the command in flight was first seen picked up, if its row does not have that instant yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub picked_up_at: Option<Timestamp>,
    pub trace: Trace,
}

/// An action that a person, or a service on a person's behalf, may ask for.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ActionKind {
    /// Compensate the saga if its pivot is not done, because the saga is no longer wanted.
    Cancel,
    /// Compensate the saga if its pivot is not done, because an operator has seen that it must not go on.
    Compensate,
    /// Retry the used-up commands of a parked saga, or those of one step.
    Retry {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// The payload to send instead of the definition's; needs `step`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Value>))]
        input: Option<Value>,
    },
    /// Count a step that is not done as done, with this result.
    Complete {
        step: String,
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Value))]
        result: Value,
    },
    /// Count the pivot as not done, and start compensating. Legal only if the pivot's participant was asked in vain.
    NotDone { step: String },
    /// Continue the saga without a step, or without the step's compensation.
    Skip {
        step: String,
        /// `true` skips the compensation of a saga that compensates, `false` the step of a saga that goes forward. The
        /// operator says which, so that a saga that has started compensating meanwhile loses no compensation.
        #[serde(default)]
        compensation: bool,
    },
    /// End the saga in its current state.
    Abandon,
}

/// The word for an action, in URLs, tables and events.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionName {
    Retry,
    Cancel,
    Compensate,
    Complete,
    NotDone,
    Skip,
    Abandon,
}

impl ActionName {
    /// All actions, from the mildest to the last resort.
    pub const ALL: [Self; 7] = [
        Self::Retry,
        Self::Cancel,
        Self::Compensate,
        Self::Complete,
        Self::NotDone,
        Self::Skip,
        Self::Abandon,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Compensate => "compensate",
            Self::Complete => "complete",
            Self::NotDone => "not_done",
            Self::Skip => "skip",
            Self::Abandon => "abandon",
        }
    }
}

impl Display for ActionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ActionKind {
    pub fn name(&self) -> ActionName {
        match self {
            Self::Cancel => ActionName::Cancel,
            Self::Compensate => ActionName::Compensate,
            Self::Retry { .. } => ActionName::Retry,
            Self::Complete { .. } => ActionName::Complete,
            Self::NotDone { .. } => ActionName::NotDone,
            Self::Skip { .. } => ActionName::Skip,
            Self::Abandon => ActionName::Abandon,
        }
    }

    /// Returns the step that the action is about, or `None` if it is about the whole saga.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Retry { step, .. } => step.as_deref(),
            Self::Complete { step, .. } | Self::NotDone { step } | Self::Skip { step, .. } => {
                Some(step)
            }
            Self::Cancel | Self::Compensate | Self::Abandon => None,
        }
    }

    /// Returns the value that the operator gave: a corrected payload, or a result.
    pub fn given(&self) -> Option<&Value> {
        match self {
            Self::Retry { input, .. } => input.as_ref(),
            Self::Complete { result, .. } => Some(result),
            Self::Cancel
            | Self::Compensate
            | Self::NotDone { .. }
            | Self::Skip { .. }
            | Self::Abandon => None,
        }
    }

    /// Returns a retry of all used-up commands of a saga, with unchanged payloads.
    pub fn retry() -> Self {
        Self::Retry {
            step: None,
            input: None,
        }
    }
}

/// An operator's action. Its id is the primary key of its audit row, so the action is decided once.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorAction {
    pub saga_id: SagaId,
    pub action_id: Uuid,
    #[serde(flatten)]
    pub kind: ActionKind,
    /// The person or service that asked, for the audit row.
    pub actor: String,
    pub reason: String,
    /// The action is decided only if the saga still has this version.
    pub if_version: Option<u64>,
    pub trace: Trace,
}

/// `ce_type` of a timer and of an operator action.
const TIMER_TYPE: &str = "saga.timer.due";
const ACTION_TYPE: &str = "saga.operator.action";

impl Input {
    pub fn saga_id(&self) -> SagaId {
        match self {
            Self::Start(start) => start.saga_id,
            Self::Reply(reply) => reply.saga_id,
            Self::Timer(timer) => timer.saga_id,
            Self::Operator(action) => action.saga_id,
        }
    }

    /// Reads any record of `saga.inputs`. A timer and an operator action are recognized by their type, a reply by
    /// `saga-outcome`, a start by `saga-definition`.
    pub fn decode(record: &IncomingRecord) -> Result<Self, DecodeError> {
        match record.required(header::CE_TYPE)? {
            TIMER_TYPE => return Ok(Self::Timer(record.object()?)),
            ACTION_TYPE => return Ok(Self::Operator(record.object()?)),
            _ => {}
        }
        if record.header(header::OUTCOME)?.is_some() {
            return Reply::decode(record).map(Self::Reply);
        }
        if record.header(header::DEFINITION)?.is_some() {
            return StartSaga::decode(record).map(Self::Start);
        }
        Err(DecodeError::Unrecognised)
    }
}

/// Makes an input's record for `topic` and the saga's home partition. Without a partition the key selects one.
fn record(
    topic: &str,
    partition: Option<i32>,
    saga: SagaId,
    headers: Headers,
    payload: &impl Serialize,
) -> OutgoingRecord {
    OutgoingRecord {
        topic: topic.to_owned(),
        partition,
        key: saga.to_string().into_bytes(),
        headers,
        payload: json(payload),
    }
}

impl StartSaga {
    /// The value of the header `saga-start` of a start that is sent again together with a cancel.
    pub const AGAIN: &str = "again";

    pub fn id(&self) -> String {
        format!("{}/start", self.saga_id)
    }

    pub fn encode(
        &self,
        topic: &str,
        home_partition: i32,
        source: &str,
        at: Timestamp,
    ) -> OutgoingRecord {
        let mut headers = cloud_event(
            self.id(),
            &self.start_type,
            source,
            at,
            self.saga_id,
            &self.trace,
        );
        headers.push(header::DEFINITION, &self.definition);
        if let Some(key) = &self.business_key {
            headers.push(header::BUSINESS_KEY, key);
        }
        record(
            topic,
            Some(home_partition),
            self.saga_id,
            headers,
            &self.input,
        )
    }

    fn decode(record: &IncomingRecord) -> Result<Self, DecodeError> {
        Ok(Self {
            saga_id: record.parsed(header::SAGA_ID)?,
            start_type: record.required(header::CE_TYPE)?.to_owned(),
            definition: record.required(header::DEFINITION)?.to_owned(),
            business_key: record.header(header::BUSINESS_KEY)?.map(str::to_owned),
            input: record.object()?,
            trace: trace_of(record)?,
        })
    }
}

/// Limits of a fault's code and message. A fault is stored in the saga's row and in its events, perhaps once an
/// attempt.
const MAX_CODE_CHARS: usize = 100;
const MAX_MESSAGE_CHARS: usize = 1_000;

impl Reply {
    /// Returns `<saga>/<step>/<direction>/<outcome>`, and for an `error` also its attempt, since each attempt may have
    /// one.
    pub fn id(&self) -> String {
        self.shown_id().to_string()
    }

    fn shown_id(&self) -> impl Display {
        fmt::from_fn(|f| {
            let (saga, step, outcome) = (self.saga_id, &self.step, self.outcome.as_str());
            write!(f, "{saga}/{step}/{}/{outcome}", self.direction)?;
            match self.outcome {
                Outcome::Error => write!(f, "/{}", self.attempt),
                Outcome::Success | Outcome::Failure | Outcome::NotDone => Ok(()),
            }
        })
    }

    /// Returns the fault of a failure or an error, whatever shape a foreign participant gave it. Code and message are
    /// cut to the length that a saga's log should keep.
    pub fn fault(&self) -> Fault {
        let fault = Fault::deserialize(&self.payload)
            .unwrap_or_else(|_| Fault::new(self.outcome.as_str(), self.payload.to_string()));
        Fault {
            code: beginning(&fault.code, MAX_CODE_CHARS).to_owned(),
            message: beginning(&fault.message, MAX_MESSAGE_CHARS).to_owned(),
        }
    }

    pub fn encode(&self, reply_to: &super::ReplyTo, source: &str, at: Timestamp) -> OutgoingRecord {
        let mut headers = cloud_event(
            self.shown_id(),
            &self.reply_type,
            source,
            at,
            self.saga_id,
            &self.trace,
        );
        headers.push(header::STEP, &self.step);
        headers.push(header::DIRECTION, self.direction.as_str());
        headers.push_shown(header::ATTEMPT, self.attempt);
        headers.push(header::OUTCOME, self.outcome.as_str());
        record(
            &reply_to.topic,
            Some(reply_to.partition),
            self.saga_id,
            headers,
            &self.payload,
        )
    }

    fn decode(record: &IncomingRecord) -> Result<Self, DecodeError> {
        let outcome = match record.required(header::OUTCOME)? {
            "success" => Outcome::Success,
            "failure" => Outcome::Failure,
            "error" => Outcome::Error,
            "not_done" => Outcome::NotDone,
            other => {
                return Err(DecodeError::BadHeader {
                    name: header::OUTCOME,
                    why: format!("'{other}' is not success, failure, error or not_done"),
                });
            }
        };
        Ok(Self {
            saga_id: record.parsed(header::SAGA_ID)?,
            step: record.required(header::STEP)?.to_owned(),
            direction: record.parsed(header::DIRECTION)?,
            attempt: record.parsed(header::ATTEMPT)?,
            reply_type: record.required(header::CE_TYPE)?.to_owned(),
            outcome,
            payload: record.json()?,
            trace: trace_of(record)?,
        })
    }
}

impl TimerDue {
    pub fn id(&self) -> String {
        match &self.part {
            None => format!("{}/timer/deadline", self.saga_id),
            Some(part) => format!(
                "{}/timer/{}/{}/{}/{:?}/{:?}",
                self.saga_id, part.step, part.direction, part.attempt, self.kind, self.verdict
            )
            .to_lowercase(),
        }
    }

    pub fn encode(
        &self,
        topic: &str,
        home_partition: Option<i32>,
        source: &str,
        at: Timestamp,
    ) -> OutgoingRecord {
        let headers = cloud_event(self.id(), TIMER_TYPE, source, at, self.saga_id, &self.trace);
        record(topic, home_partition, self.saga_id, headers, self)
    }
}

impl OperatorAction {
    pub fn encode(
        &self,
        topic: &str,
        home_partition: Option<i32>,
        source: &str,
        at: Timestamp,
    ) -> OutgoingRecord {
        let id = self.action_id.to_string();
        let mut headers = cloud_event(&id, ACTION_TYPE, source, at, self.saga_id, &self.trace);
        headers.push(header::ACTION_ID, &id);
        record(topic, home_partition, self.saga_id, headers, self)
    }
}
