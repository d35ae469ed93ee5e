//! Encodes records as text in an outbox row. Bytes that are valid UTF-8 are stored as text, so that a person can read
//! the row.

use saga_core::message::OutgoingRecord;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(borrow)]
    key: Bytes<'a>,
    #[serde(borrow)]
    headers: Vec<(Cow<'a, str>, Bytes<'a>)>,
    #[serde(borrow)]
    payload: Bytes<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
}

impl<'a> Bytes<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(Cow::Borrowed(text)),
            Err(_) => Self::Binary(Cow::Borrowed(bytes)),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

pub(super) fn encode(records: &[OutgoingRecord]) -> Vec<u8> {
    let rows: Vec<Row<'_>> = records
        .iter()
        .map(|record| Row {
            topic: Cow::Borrowed(&record.topic),
            partition: record.partition,
            key: Bytes::of(&record.key),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (Cow::Borrowed(name), Bytes::of(value)))
                .collect(),
            payload: Bytes::of(&record.payload),
        })
        .collect();
    // The rows contain only strings, numbers and lists, so serialization cannot fail.
    serde_json::to_vec(&rows).unwrap_or_default()
}

pub(super) fn decode(text: &[u8]) -> Result<Vec<OutgoingRecord>, serde_json::Error> {
    let rows: Vec<Row<'_>> = serde_json::from_slice(text)?;
    Ok(rows
        .into_iter()
        .map(|row| OutgoingRecord {
            topic: row.topic.into_owned(),
            partition: row.partition,
            key: row.key.as_slice().to_vec(),
            headers: row
                .headers
                .iter()
                .map(|(name, value)| (name, value.as_slice()))
                .collect(),
            payload: row.payload.as_slice().to_vec(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::message::Headers;

    #[test]
    fn records_with_arbitrary_bytes_survive() {
        let records = vec![
            OutgoingRecord {
                topic: "saga.inputs".to_owned(),
                partition: Some(3),
                key: b"key".to_vec(),
                headers: [("a\"\n", &[0, 0xff][..]), ("", &[])].into(),
                payload: "{\"x\":\"ä\\u0000\"}".as_bytes().to_vec(),
            },
            OutgoingRecord {
                topic: "t".to_owned(),
                partition: None,
                key: vec![0xc3],
                headers: Headers::default(),
                payload: vec![0],
            },
        ];
        assert_eq!(decode(&encode(&records)).unwrap(), records);
    }
}
