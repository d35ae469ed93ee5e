//! A record in a topic, independent of any client library.

use super::Headers;
use crate::{
    ids::{SagaId, Timestamp},
    json::{self, JsonError, OutOfRange},
};
use chrono::SecondsFormat;
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use std::fmt::Display;
use thiserror::Error;

/// The header names of the contract.
pub mod header {
    pub const CE_SPECVERSION: &str = "ce_specversion";
    pub const CE_ID: &str = "ce_id";
    pub const CE_TYPE: &str = "ce_type";
    pub const CE_SOURCE: &str = "ce_source";
    pub const CE_TIME: &str = "ce_time";
    pub const CE_SUBJECT: &str = "ce_subject";
    pub const CONTENT_TYPE: &str = "content-type";
    pub const SAGA_ID: &str = "saga-id";
    pub const STEP: &str = "saga-step";
    pub const DIRECTION: &str = "saga-direction";
    pub const ATTEMPT: &str = "saga-attempt";
    pub const OUTCOME: &str = "saga-outcome";
    pub const SAVE_FAILURE: &str = "save-failure";
    pub const REPLY_TOPIC: &str = "reply-topic";
    pub const REPLY_PARTITION: &str = "reply-partition";
    pub const FLOOR: &str = "saga-floor";
    pub const DEFINITION: &str = "saga-definition";
    pub const BUSINESS_KEY: &str = "saga-business-key";
    /// `again` on a start that was sent before: if the saga is unknown, it may have run all the same.
    pub const START: &str = "saga-start";
    pub const ACTION_ID: &str = "saga-action-id";
    pub const SEQUENCE: &str = "saga-sequence";
    pub const CORRELATION_ID: &str = "correlation-id";
    pub const TRACEPARENT: &str = "traceparent";
    pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";
    pub const DEAD_LETTER_DETAIL: &str = "dead-letter-detail";
    pub const DEAD_LETTER_TOPIC: &str = "dead-letter-topic";
    pub const DEAD_LETTER_PARTITION: &str = "dead-letter-partition";
    pub const DEAD_LETTER_OFFSET: &str = "dead-letter-offset";
    pub const DEAD_LETTER_TIME: &str = "dead-letter-time";
    pub const DEAD_LETTER_CUT: &str = "dead-letter-cut";
    pub const REPLAYED_FROM: &str = "replayed-from";
}

/// A record to produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingRecord {
    pub topic: String,
    /// The explicit partition, or `None` if the producer's partitioner chooses by key.
    pub partition: Option<i32>,
    pub key: Vec<u8>,
    pub headers: Headers,
    pub payload: Vec<u8>,
}

/// A record that was consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The record time in milliseconds since the Unix epoch (`CreateTime`); 0 if the broker keeps none.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub headers: Headers,
    pub payload: Option<Vec<u8>>,
}

/// Says why a record cannot be read. Each variant is a reason for the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
    #[error("header {name} is not valid: {why}")]
    BadHeader { name: &'static str, why: String },
    #[error("the value is missing (a tombstone)")]
    NoPayload,
    #[error("the value is not the JSON expected: {0}")]
    BadPayload(String),
    #[error(transparent)]
    NumberOutOfRange(OutOfRange),
    #[error("neither a start, a reply, a timer nor an operator action")]
    Unrecognised,
}

impl DecodeError {
    /// Returns the `dead-letter-reason` that programs filter by.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingHeader(_) => "missing_header",
            Self::BadHeader { .. } => "bad_header",
            Self::NoPayload => "no_payload",
            Self::BadPayload(_) => "bad_payload",
            Self::NumberOutOfRange(_) => "number_out_of_range",
            Self::Unrecognised => "unrecognised",
        }
    }
}

impl IncomingRecord {
    /// Returns the last value of a header as text.
    pub fn header(&self, name: &'static str) -> Result<Option<&str>, DecodeError> {
        self.headers
            .get(name)
            .map(|value| {
                std::str::from_utf8(value).map_err(|error| DecodeError::BadHeader {
                    name,
                    why: error.to_string(),
                })
            })
            .transpose()
    }

    pub fn required(&self, name: &'static str) -> Result<&str, DecodeError> {
        self.header(name)?.ok_or(DecodeError::MissingHeader(name))
    }

    /// Returns a header's value, parsed as `T`.
    pub fn parsed<T>(&self, name: &'static str) -> Result<T, DecodeError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.required(name)?
            .parse()
            .map_err(|error: T::Err| DecodeError::BadHeader {
                name,
                why: error.to_string(),
            })
    }

    /// Reads the value of a message that is an object by contract. A list is not accepted as the object's members in
    /// order, and a string is not accepted as encoded JSON.
    pub(super) fn object<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let Some(instead) = self.payload.as_deref().and_then(json::instead_of_object) else {
            return self.json();
        };
        // A value that is not JSON at all is reported as such first.
        self.json::<IgnoredAny>()?;
        Err(DecodeError::BadPayload(format!(
            "an object was expected, and this is {instead}"
        )))
    }

    /// Reads the value of a message that may be any JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let payload = self.payload.as_deref().ok_or(DecodeError::NoPayload)?;
        json::from_slice(payload).map_err(|error| match error {
            JsonError::Malformed(error) => DecodeError::BadPayload(error.to_string()),
            JsonError::OutOfRange(found) => DecodeError::NumberOutOfRange(found),
        })
    }
}

/// Returns the headers that every message has, in the contract's order.
pub(crate) fn cloud_event(
    id: impl Display,
    kind: impl Display,
    source: &str,
    at: Timestamp,
    saga: SagaId,
    trace: &super::Trace,
) -> Headers {
    let mut headers = Headers::of_message();
    headers.push(header::CE_SPECVERSION, "1.0");
    headers.push_shown(header::CE_ID, id);
    headers.push_shown(header::CE_TYPE, kind);
    headers.push(header::CE_SOURCE, source);
    headers.push(
        header::CE_TIME,
        at.to_rfc3339_opts(SecondsFormat::Millis, true),
    );
    headers.push(header::CONTENT_TYPE, "application/json");
    headers.push_shown(header::SAGA_ID, saga);
    headers.push(header::CORRELATION_ID, &trace.correlation_id);
    if let Some(traceparent) = &trace.traceparent {
        headers.push(header::TRACEPARENT, traceparent);
    }
    headers
}

/// Initial capacity, enough for the value of an ordinary message.
const PAYLOAD_BYTES: usize = 512;

/// Serializes a record's value.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(PAYLOAD_BYTES);
    match serde_json::to_writer(&mut json, value) {
        Ok(()) => json,
        Err(_) => b"null".to_vec(),
    }
}

/// Returns at most `chars` characters of a text.
pub(crate) fn beginning(text: &str, chars: usize) -> &str {
    if text.len() <= chars {
        return text;
    }
    text.char_indices()
        .nth(chars)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

/// Limits the trace. It is in all messages of a saga, so it must never make a message too large for the broker.
const MAX_CORRELATION_CHARS: usize = 200;
/// The current W3C `traceparent` has 55 characters; a later version may have more.
const MAX_TRACEPARENT_BYTES: usize = 200;

pub(crate) fn trace_of(record: &IncomingRecord) -> Result<super::Trace, DecodeError> {
    Ok(super::Trace {
        correlation_id: beginning(
            record.header(header::CORRELATION_ID)?.unwrap_or_default(),
            MAX_CORRELATION_CHARS,
        )
        .to_owned(),
        traceparent: record
            .header(header::TRACEPARENT)?
            .filter(|parent| parent.len() <= MAX_TRACEPARENT_BYTES)
            .map(str::to_owned),
    })
}
