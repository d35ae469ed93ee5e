use super::{
    Trace,
    record::{DecodeError, IncomingRecord, OutgoingRecord, cloud_event, header, json, trace_of},
};
use crate::ids::{SagaId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fmt::{self, Display},
    str::FromStr,
};

/// The direction of a step's command.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Forward,
    Compensation,
    /// Asks if the forward command was done. If it was not, it never will be.
    Resolve,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Compensation => "compensation",
            Self::Resolve => "resolve",
        }
    }
}

impl Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Direction {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "forward" => Ok(Self::Forward),
            "compensation" => Ok(Self::Compensation),
            "resolve" => Ok(Self::Resolve),
            other => Err(format!("'{other}' is not forward, compensation or resolve")),
        }
    }
}

/// The destination of a reply: the saga's home partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    pub topic: String,
    pub partition: i32,
}

/// A command to a participant. Its id is `<saga>/<step>/<direction>/<attempt>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub saga_id: SagaId,
    pub step: String,
    pub direction: Direction,
    /// Counted from 1; echoed in the reply, never saved by the participant.
    pub attempt: u32,
    /// For example `inventory.reserve`. A resolve has the type of the forward command plus `.resolve`.
    pub command_type: String,
    pub payload: Value,
    /// True if a `failure` of this command is final and the barrier saves it.
    pub save_failure: bool,
    pub reply_to: ReplyTo,
    /// The orchestrator's low-water mark: no saga that began before this instant may have an effect any more.
    pub floor: Option<Timestamp>,
    pub trace: Trace,
}

impl Command {
    /// The suffix that makes the type of a resolve from the type of its forward command.
    pub const RESOLVE_SUFFIX: &str = ".resolve";

    pub fn id(&self) -> String {
        self.shown_id().to_string()
    }

    fn shown_id(&self) -> impl Display {
        fmt::from_fn(|f| {
            let (saga, step) = (self.saga_id, &self.step);
            write!(f, "{saga}/{step}/{}/{}", self.direction, self.attempt)
        })
    }

    /// Returns the record that sends this command to `topic`, keyed by saga.
    pub fn encode(&self, topic: &str, source: &str, at: Timestamp) -> OutgoingRecord {
        self.encode_with(json(&self.payload), topic, source, at)
    }

    /// Does the same with the payload's JSON, which the caller has written before.
    pub(crate) fn encode_with(
        &self,
        payload: Vec<u8>,
        topic: &str,
        source: &str,
        at: Timestamp,
    ) -> OutgoingRecord {
        let mut headers = cloud_event(
            self.shown_id(),
            &self.command_type,
            source,
            at,
            self.saga_id,
            &self.trace,
        );
        headers.push(header::STEP, &self.step);
        headers.push(header::DIRECTION, self.direction.as_str());
        headers.push_shown(header::ATTEMPT, self.attempt);
        headers.push(
            header::SAVE_FAILURE,
            if self.save_failure { "true" } else { "false" },
        );
        headers.push(header::REPLY_TOPIC, &self.reply_to.topic);
        headers.push_shown(header::REPLY_PARTITION, self.reply_to.partition);
        if let Some(floor) = self.floor {
            headers.push_shown(header::FLOOR, floor.timestamp_millis());
        }
        OutgoingRecord {
            topic: topic.to_owned(),
            partition: None,
            key: self.saga_id.to_string().into_bytes(),
            headers,
            payload,
        }
    }

    /// Reads a command, and checks every header that the barrier relies on.
    pub fn decode(record: &IncomingRecord) -> Result<Self, DecodeError> {
        let floor = match record.header(header::FLOOR)? {
            None => None,
            Some(text) => Some(parse_millis(header::FLOOR, text)?),
        };
        let step = record.required(header::STEP)?;
        if step.is_empty() {
            return Err(DecodeError::BadHeader {
                name: header::STEP,
                why: "empty".to_owned(),
            });
        }
        Ok(Self {
            saga_id: record.parsed(header::SAGA_ID)?,
            step: step.to_owned(),
            direction: record.parsed(header::DIRECTION)?,
            attempt: record.parsed(header::ATTEMPT)?,
            command_type: record.required(header::CE_TYPE)?.to_owned(),
            payload: record.json()?,
            save_failure: match record.header(header::SAVE_FAILURE)? {
                None => false,
                Some(_) => record.parsed(header::SAVE_FAILURE)?,
            },
            reply_to: ReplyTo {
                topic: record.required(header::REPLY_TOPIC)?.to_owned(),
                partition: record.parsed(header::REPLY_PARTITION)?,
            },
            floor,
            trace: trace_of(record)?,
        })
    }
}

fn parse_millis(name: &'static str, text: &str) -> Result<Timestamp, DecodeError> {
    text.parse()
        .ok()
        .and_then(Timestamp::from_timestamp_millis)
        .ok_or_else(|| DecodeError::BadHeader {
            name,
            why: "not milliseconds".to_owned(),
        })
}
