//! A record as it stands in a topic, free of any client library.

use super::number;
use crate::ids::{SagaId, Timestamp};
use chrono::SecondsFormat;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Header names of the contract.
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
    /// Explicit partition, or `None`: the producer's partitioner chooses by key.
    pub partition: Option<i32>,
    pub key: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub payload: Vec<u8>,
}

/// A record that was consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Record time, milliseconds since the Unix epoch (`CreateTime`), 0 if the broker keeps none.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub payload: Option<Vec<u8>>,
}

/// Why a record cannot be read. Each is a reason for the dead-letter topic.
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
    #[error("{0} is an integer that would come out of here as another one")]
    NumberOutOfRange(String),
    #[error("neither a start, a reply, a timer nor an operator action")]
    Unrecognised,
}

impl DecodeError {
    /// The `dead-letter-reason` that programs filter by.
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
    /// The last value of a header as text.
    pub fn header(&self, name: &'static str) -> Result<Option<&str>, DecodeError> {
        self.headers
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| {
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

    /// A header that must parse as `T`.
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

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let payload = self.payload.as_deref().ok_or(DecodeError::NoPayload)?;
        let value = serde_json::from_slice(payload)
            .map_err(|error| DecodeError::BadPayload(error.to_string()))?;
        match number::out_of_range(payload) {
            None => Ok(value),
            Some(text) => Err(DecodeError::NumberOutOfRange(text)),
        }
    }
}

/// Builds a record's headers in the contract's order.
#[derive(Debug)]
pub(crate) struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    pub(crate) fn cloud_event(
        id: &str,
        kind: &str,
        source: &str,
        at: Timestamp,
        saga: SagaId,
        trace: &super::Trace,
    ) -> Self {
        let mut headers = Self(Vec::with_capacity(16));
        headers.set(header::CE_SPECVERSION, "1.0");
        headers.set(header::CE_ID, id);
        headers.set(header::CE_TYPE, kind);
        headers.set(header::CE_SOURCE, source);
        headers.set(
            header::CE_TIME,
            &at.to_rfc3339_opts(SecondsFormat::Millis, true),
        );
        headers.set(header::CONTENT_TYPE, "application/json");
        headers.set(header::SAGA_ID, &saga.to_string());
        headers.set(header::CORRELATION_ID, &trace.correlation_id);
        if let Some(traceparent) = &trace.traceparent {
            headers.set(header::TRACEPARENT, traceparent);
        }
        headers
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.as_bytes().to_vec()));
    }

    pub(crate) fn into_inner(self) -> Vec<(String, Vec<u8>)> {
        self.0
    }
}

/// A saga's trace stands in every one of its messages, so it must never be what makes one too large for the broker.
const MAX_CORRELATION_CHARS: usize = 200;
/// W3C's has 55 characters; a later version's may have more.
const MAX_TRACEPARENT_BYTES: usize = 200;

pub(crate) fn trace_of(record: &IncomingRecord) -> Result<super::Trace, DecodeError> {
    Ok(super::Trace {
        correlation_id: record
            .header(header::CORRELATION_ID)?
            .unwrap_or_default()
            .chars()
            .take(MAX_CORRELATION_CHARS)
            .collect(),
        traceparent: record
            .header(header::TRACEPARENT)?
            .filter(|parent| parent.len() <= MAX_TRACEPARENT_BYTES)
            .map(str::to_owned),
    })
}
