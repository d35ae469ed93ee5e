//! Everything that can move a saga comes through one topic, `saga.inputs`, as one of these.

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

/// An input of the orchestrator, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Start(StartSaga),
    Reply(Reply),
    Timer(TimerDue),
    Operator(OperatorAction),
}

/// Starts a saga. The id is the starter's; the same id with other content is a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartSaga {
    pub saga_id: SagaId,
    /// The business event that starts it, as `ce_type`, such as `order.created`.
    pub start_type: String,
    /// Name of the definition; the highest registered version is taken.
    pub definition: String,
    pub business_key: Option<String>,
    pub input: Value,
    pub trace: Trace,
}

/// A participant's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub saga_id: SagaId,
    pub step: String,
    /// `Forward` or `Compensation`; only a `not_done` may say `Resolve`, since any other answer to a resolve is
    /// the forward command's own saved reply.
    pub direction: Direction,
    pub attempt: u32,
    /// `ce_type`, such as `inventory.reserved`.
    pub reply_type: String,
    pub outcome: Outcome,
    /// The result of a success; a [`Fault`] of a failure or an error.
    pub payload: Value,
    pub trace: Trace,
}

/// What fell due.
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

/// Which attempt of which command a timer is about.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DuePart {
    pub step: String,
    pub direction: Direction,
    pub attempt: u32,
}

/// What is known of a command in flight when its timer falls due; decided before the timer is produced, so
/// that applying it depends on nothing outside the log.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The participant's group has not consumed it: it neither times out nor is sent again.
    Queued,
    /// The group's committed offset is beyond it: the attempt's timeout runs from now on.
    PickedUp,
    /// It was seen picked up a whole timeout ago. Not the same as [`Self::PickedUp`], so that neither a duplicate nor a
    /// redelivery of the timer that saw the pick-up is taken for the one that ends the attempt, however late it comes.
    /// Timers that look at no command say this, too.
    Unanswered,
    /// Its record no longer exists and was not consumed: send it again, without spending an attempt.
    Gone,
    /// Offsets cannot be read; treated as queued.
    Unknown,
}

/// A timer, produced by the owner to the saga's home partition, behind every reply that was there first.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimerDue {
    pub saga_id: SagaId,
    pub kind: TimerKind,
    /// `None` for the deadline.
    pub part: Option<DuePart>,
    pub verdict: Verdict,
    pub trace: Trace,
}

/// What a person, or a service on a person's behalf, may ask for.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ActionKind {
    /// Undo the saga if its pivot is not done: somebody no longer wants it.
    Cancel,
    /// Undo the saga if its pivot is not done: an operator has seen that it must not go on.
    Compensate,
    /// A parked saga tries its used-up commands again, or that of one step.
    Retry {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// Sent instead of the payload that the definition makes; needs `step`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Value>))]
        input: Option<Value>,
    },
    /// A step that is not done counts as done, with this result.
    Complete {
        step: String,
        #[serde(default)]
        #[cfg_attr(feature = "schema", schema(value_type = Value))]
        result: Value,
    },
    /// The saga goes on without a step, or without its compensation.
    Skip {
        step: String,
        /// What is skipped: `true` while the saga goes back, `false` while it goes forward. Said by the operator, so that
        /// a saga that has turned round meanwhile loses no compensation.
        #[serde(default)]
        compensation: bool,
    },
    /// The saga ends as it stands.
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
    Skip,
    Abandon,
}

impl ActionName {
    /// From the mildest to the last resort.
    pub const ALL: [Self; 6] = [
        Self::Retry,
        Self::Cancel,
        Self::Compensate,
        Self::Complete,
        Self::Skip,
        Self::Abandon,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Compensate => "compensate",
            Self::Complete => "complete",
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
            Self::Skip { .. } => ActionName::Skip,
            Self::Abandon => ActionName::Abandon,
        }
    }

    /// The step it is about, if it is about one.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Retry { step, .. } => step.as_deref(),
            Self::Complete { step, .. } | Self::Skip { step, .. } => Some(step),
            Self::Cancel | Self::Compensate | Self::Abandon => None,
        }
    }

    /// What the operator gave along: a corrected payload, or a result.
    pub fn given(&self) -> Option<&Value> {
        match self {
            Self::Retry { input, .. } => input.as_ref(),
            Self::Complete { result, .. } => Some(result),
            Self::Cancel | Self::Compensate | Self::Skip { .. } | Self::Abandon => None,
        }
    }

    /// A parked saga tries again whatever is used up, as it was.
    pub fn retry() -> Self {
        Self::Retry {
            step: None,
            input: None,
        }
    }
}

/// An operator's action. Its id is the primary key of its audit row, so it is decided once.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorAction {
    pub saga_id: SagaId,
    pub action_id: Uuid,
    #[serde(flatten)]
    pub kind: ActionKind,
    /// Who asked, for the audit row.
    pub actor: String,
    pub reason: String,
    /// Decided only if the saga's version is still this one.
    pub if_version: Option<u64>,
    pub trace: Trace,
}

/// `ce_type` of a timer and prefix of an operator action's.
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

    /// Reads any record of `saga.inputs`. A timer is known by its type, an operator action by its type, a reply
    /// by `saga-outcome`, a start by `saga-definition`.
    pub fn decode(record: &IncomingRecord) -> Result<Self, DecodeError> {
        match record.required(header::CE_TYPE)? {
            TIMER_TYPE => return Ok(Self::Timer(record.json()?)),
            ACTION_TYPE => return Ok(Self::Operator(record.json()?)),
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

/// An input's record: `topic` and the saga's home partition; `None` falls back to the key.
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
            input: record.json()?,
            trace: trace_of(record)?,
        })
    }
}

/// A fault stands in the saga's row and in its events, perhaps once an attempt.
const MAX_CODE_CHARS: usize = 100;
const MAX_MESSAGE_CHARS: usize = 1_000;

impl Reply {
    /// `<saga>/<step>/<direction>/<outcome>`, and for an `error` its attempt, since each attempt may have one.
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

    /// The fault of a failure or an error, whatever shape a foreign participant gave it, cut to what a saga's log
    /// should keep of it.
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
