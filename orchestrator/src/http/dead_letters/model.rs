//! JSON types of the dead-letter endpoints.

use crate::{
    dead_letters::{DecisionOutcome, LetterWithDecision},
    store::dead_letter::Decision,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use saga_core::message::header;
use saga_messaging::dead_letter::{Correction, DeadLetter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Query of `GET /dead-letters`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LetterQuery {
    /// The topic that the records came from, or its dead-letter topic.
    pub topic: Option<String>,
    /// Reason of the letters, such as `bad_payload`.
    pub reason: Option<String>,
    /// Id of the saga of the letters.
    pub saga: Option<Uuid>,
    /// Includes letters that were replayed or discarded.
    #[serde(default)]
    pub all: bool,
    /// `nextCursor` of the previous page.
    pub cursor: Option<String>,
    /// Number of letters on the page: 1 to 200, 50 if left out.
    pub limit: Option<u32>,
}

/// A page of letters, by topic and partition, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LetterPage {
    pub letters: Vec<LetterSummary>,
    /// The `cursor` of the next page; absent on the last page. A page may have few letters or none and still not be the
    /// last: one request reads a bounded number of letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One letter of a listing.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LetterSummary {
    /// `<topic>.dlq/<partition>/<offset>`.
    pub id: String,
    /// Reason of the letter; empty in a record that another program wrote into the dead-letter topic.
    pub reason: String,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceView>,
    pub written_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga_id: Option<Uuid>,
    /// `ce_type` of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    pub value_bytes: usize,
    /// `open`, `replayed` or `discarded`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionView>,
}

/// The position of the record in its original topic.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The record's own timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// The decision about a letter: by whom, when and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionView {
    /// `replayed` or `discarded`.
    pub decision: String,
    pub actor: String,
    pub reason: String,
    pub decided_at: DateTime<Utc>,
    /// True if the record was corrected.
    pub corrected: bool,
    /// The partition of the replayed record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed_partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed_offset: Option<i64>,
}

/// A letter with its whole record.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LetterView {
    #[serde(flatten)]
    pub summary: LetterSummary,
    pub key: BytesView,
    pub headers: Vec<HeaderView>,
    pub value: BytesView,
    /// The size of the whole record, if the letter holds only its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_from_bytes: Option<u64>,
}

/// Bytes, as text if they are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum BytesView {
    Text(String),
    Base64(String),
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderView {
    pub name: String,
    #[serde(flatten)]
    pub value: BytesView,
}

/// Body of `POST /dead-letters/{topic}/{partition}/{offset}/replay`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayRequest {
    /// Reason for the audit; 1 to 2000 characters.
    pub reason: String,
    /// Name of the person who asks; `http` if left out.
    #[serde(default)]
    pub actor: Option<String>,
    /// The corrected value of the record; unchanged if left out. The record is decoded as its consumer will decode it,
    /// and refused if it would become a dead letter again.
    #[serde(default)]
    pub value: Option<String>,
    /// The headers to change, with their new values.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Only reports whether the letter can be replayed.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /dead-letters/{topic}/{partition}/{offset}/discard`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiscardRequest {
    /// Reason for the audit; 1 to 2000 characters.
    pub reason: String,
    /// Name of the person who asks; `http` if left out.
    #[serde(default)]
    pub actor: Option<String>,
    /// Only reports whether the letter can be discarded.
    #[serde(default)]
    pub dry_run: bool,
}

/// The outcome of a request to replay or discard a letter.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictView {
    pub id: String,
    /// `replayed` or `discarded`; `already_replayed` or `already_discarded` if that was done before and nothing was
    /// done now; `can_be_replayed` or `can_be_discarded` after a dry run.
    pub outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionView>,
}

impl LetterSummary {
    pub fn of(found: &LetterWithDecision) -> Self {
        let letter = &found.letter;
        Self {
            id: letter.id.to_string(),
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            source: source(letter),
            written_at: DateTime::from_timestamp_millis(letter.written_at_ms).unwrap_or_default(),
            saga_id: letter.saga.map(|saga| saga.0),
            message_type: letter.header(header::CE_TYPE).map(str::to_owned),
            value_bytes: letter.payload.len(),
            state: found
                .decision
                .as_ref()
                .map_or_else(|| "open".to_owned(), |decision| decision.decision.clone()),
            decision: found.decision.clone().map(DecisionView::from),
        }
    }
}

fn source(letter: &DeadLetter) -> Option<SourceView> {
    let source = letter.source.clone()?;
    Some(SourceView {
        topic: source.topic,
        partition: source.partition,
        offset: source.offset,
        time: source.time,
    })
}

impl From<Decision> for DecisionView {
    fn from(decision: Decision) -> Self {
        Self {
            decision: decision.decision,
            actor: decision.actor,
            reason: decision.reason,
            decided_at: decision.decided_at,
            corrected: decision.corrected,
            replayed_partition: decision.replayed_partition,
            replayed_offset: decision.replayed_offset,
        }
    }
}

impl LetterView {
    pub fn of(found: &LetterWithDecision) -> Self {
        let letter = &found.letter;
        let headers = letter.headers.iter();
        Self {
            summary: LetterSummary::of(found),
            key: BytesView::of(&letter.key),
            headers: headers
                .map(|(name, value)| HeaderView {
                    name: name.to_owned(),
                    value: BytesView::of(value),
                })
                .collect(),
            value: BytesView::of(&letter.payload),
            cut_from_bytes: letter.cut_from_bytes,
        }
    }
}

impl BytesView {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }
}

impl ReplayRequest {
    pub fn correction(&self) -> Correction {
        Correction {
            value: self.value.clone().map(String::into_bytes),
            headers: self.headers.clone(),
        }
    }
}

impl VerdictView {
    /// Makes the view of a decision. `word` is the requested decision: `replayed` or `discarded`.
    pub fn of(id: String, word: &str, verdict: DecisionOutcome) -> Self {
        let (outcome, decision) = match verdict {
            DecisionOutcome::Done(decision) => (word.to_owned(), Some(decision)),
            DecisionOutcome::Before(decision) => (format!("already_{word}"), Some(decision)),
            DecisionOutcome::Would => (format!("can_be_{word}"), None),
        };
        Self {
            id,
            outcome,
            decision: decision.map(DecisionView::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let view = |bytes: &[u8]| serde_json::to_value(BytesView::of(bytes)).unwrap();
        assert_eq!(view("ä\0".as_bytes()), json!({"text": "ä\0"}));
        assert_eq!(view(b""), json!({"text": ""}));
        assert_eq!(view(&[0xff, 0]), json!({"base64": "/wA="}));
    }
}
