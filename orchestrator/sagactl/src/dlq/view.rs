//! The API's views of dead letters, printed for people.

use crate::output::table;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterPage {
    pub letters: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub id: String,
    reason: String,
    detail: String,
    state: String,
    written_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saga_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    /// Fields that are printed only as JSON.
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    #[serde(rename = "decision")]
    outcome: String,
    actor: String,
    reason: String,
    decided_at: DateTime<Utc>,
    corrected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_offset: Option<i64>,
}

impl fmt::Display for LetterPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.letters.is_empty() {
            writeln!(f, "no such letter")?;
        }
        let rows: Vec<Vec<String>> = self.letters.iter().map(Summary::cells).collect();
        table(f, &rows)?;
        match &self.next_cursor {
            Some(cursor) => writeln!(f, "more: --cursor {cursor}"),
            None => Ok(()),
        }
    }
}

impl Summary {
    fn cells(&self) -> Vec<String> {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.id.clone(),
            instant(self.written_at),
            self.state.clone(),
            if self.reason.is_empty() {
                "-".to_owned()
            } else {
                self.reason.clone()
            },
            or_none(&self.message_type),
            or_none(&self.saga_id),
            one_line(&self.detail),
        ]
    }
}

/// One letter with its whole record.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    id: String,
    reason: String,
    detail: String,
    state: String,
    written_at: DateTime<Utc>,
    source: Option<Source>,
    decision: Option<Decision>,
    key: Bytes,
    headers: Vec<Header>,
    value: Bytes,
    cut_from_bytes: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Source {
    topic: String,
    partition: i32,
    offset: i64,
    time: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Header {
    name: String,
    #[serde(flatten)]
    value: Bytes,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Bytes {
    Text(String),
    Base64(String),
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Escape sequences in a record's text could control the terminal, so they are replaced.
            Self::Text(text) => f.write_str(&printable(text)),
            Self::Base64(text) => write!(f, "(base64) {text}"),
        }
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "letter {}: {}", self.id, self.state)?;
        writeln!(f, "  written at {}", instant(self.written_at))?;
        writeln!(f, "  reason: {}: {}", self.reason, one_line(&self.detail))?;
        if let Some(source) = &self.source {
            let time = source.time.as_deref().unwrap_or("an unknown time");
            writeln!(
                f,
                "  record: {} partition {} offset {}, of {time}",
                source.topic, source.partition, source.offset
            )?;
        }
        if let Some(decision) = &self.decision {
            writeln!(f, "  {decision}")?;
        }
        if let Some(bytes) = self.cut_from_bytes {
            writeln!(f, "  only the beginning of a record of {bytes} bytes")?;
        }
        writeln!(f, "key\n  {}", self.key)?;
        writeln!(f, "headers")?;
        let rows: Vec<Vec<String>> = self
            .headers
            .iter()
            .map(|header| {
                let name = format!("  {}", printable(&header.name));
                vec![name, header.value.to_string()]
            })
            .collect();
        table(f, &rows)?;
        writeln!(f, "value\n  {}", self.value)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} by {} at {}",
            self.outcome,
            self.actor,
            instant(self.decided_at)
        )?;
        if self.corrected {
            f.write_str(", put right")?;
        }
        if let (Some(partition), Some(offset)) = (self.replayed_partition, self.replayed_offset) {
            write!(f, ", to partition {partition} offset {offset}")?;
        }
        write!(f, ": {}", one_line(&self.reason))
    }
}

/// The outcome of a request about a letter.
#[derive(Clone, Debug, Deserialize)]
pub struct DecisionAnswer {
    id: String,
    pub outcome: String,
    decision: Option<Decision>,
}

impl fmt::Display for DecisionAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.outcome.replace('_', " "))?;
        match &self.decision {
            Some(decision) => write!(f, " ({decision})"),
            None => Ok(()),
        }
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn one_line(text: &str) -> String {
    printable(&text.replace(['\n', '\r'], " "))
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decision() -> Value {
        json!({"decision": "replayed", "actor": "ann", "reason": "put\nright", "corrected": true,
            "decidedAt": "2026-01-02T03:04:05Z", "replayedPartition": 1, "replayedOffset": 9})
    }

    #[test]
    fn a_letter_shows_its_reason_record_and_decision() {
        let letter: Letter = serde_json::from_value(json!({
            "id": "order.commands.dlq/0/3", "reason": "bad_header", "detail": "saga-attempt", "state": "replayed",
            "writtenAt": "2026-01-02T03:04:05Z", "valueBytes": 2, "decision": decision(),
            "source": {"topic": "order.commands", "partition": 1, "offset": 7, "time": "2026-01-02T03:04:04Z"},
            "key": {"text": "k"}, "value": {"base64": "/wA="},
            "headers": [{"name": "saga-attempt", "text": "x\u{1b}[2J"}],
        }))
        .unwrap();
        let text = letter.to_string();
        for part in [
            "letter order.commands.dlq/0/3: replayed",
            "reason: bad_header: saga-attempt",
            "record: order.commands partition 1 offset 7, of 2026-01-02T03:04:04Z",
            "replayed by ann at 2026-01-02T03:04:05Z, put right, to partition 1 offset 9: put right",
            "saga-attempt  x\u{fffd}[2J",
            "value\n  (base64) /wA=",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    #[test]
    fn a_page_keeps_in_json_the_fields_that_the_text_omits() {
        let raw = json!({"letters": [{
            "id": "a.dlq/0/1", "reason": "", "detail": "", "state": "open", "writtenAt": "2026-01-02T03:04:05Z",
            "valueBytes": 7}], "nextCursor": "a.dlq/0/2"});
        let page: LetterPage = serde_json::from_value(raw.clone()).unwrap();
        assert_eq!(serde_json::to_value(&page).unwrap(), raw);
        assert!(page.to_string().ends_with("more: --cursor a.dlq/0/2\n"));
    }
}
