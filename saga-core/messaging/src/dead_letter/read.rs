//! Reads dead letters, and creates the record that replays one.

use super::PREFIX;
use saga_core::{
    ids::SagaId,
    message::{Headers, IncomingRecord, OutgoingRecord, header, topic::dead_letters_of},
};
use std::{collections::BTreeMap, fmt, str::FromStr};
use thiserror::Error;

/// The place of a letter: `<topic>.dlq/<partition>/<offset>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{0}' is no letter's id, which looks like saga.inputs.dlq/0/42")]
pub struct LetterIdError(String);

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = LetterIdError;

    fn from_str(text: &str) -> Result<Self, LetterIdError> {
        let parse = || {
            let mut parts = text.split('/');
            let topic = parts.next().filter(|topic| !topic.is_empty())?.to_owned();
            let partition = parts.next()?.parse().ok().filter(|number| *number >= 0)?;
            let offset = parts.next()?.parse().ok().filter(|number| *number >= 0)?;
            parts.next().is_none().then_some(Self {
                topic,
                partition,
                offset,
            })
        };
        parse().ok_or_else(|| LetterIdError(text.to_owned()))
    }
}

/// The place that a letter's record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The record's own time, in RFC 3339.
    pub time: Option<String>,
}

/// A dead letter, with the key, headers and value of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: LetterId,
    /// The time when the letter was written, in milliseconds since the Unix epoch.
    pub written_at_ms: i64,
    /// The reason; empty for a record that another program wrote to the topic.
    pub reason: String,
    pub detail: String,
    pub source: Option<Source>,
    /// The saga, if the record's header can be read.
    pub saga: Option<SagaId>,
    /// The size of the whole record, if it did not fit and was cut.
    pub cut_from_bytes: Option<u64>,
    pub key: Vec<u8>,
    pub headers: Headers,
    pub payload: Vec<u8>,
}

/// The changes to a record when its letter is replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correction {
    pub value: Option<Vec<u8>>,
    /// Headers to set, whether the record has them or not.
    pub headers: BTreeMap<String, String>,
}

impl Correction {
    pub fn is_empty(&self) -> bool {
        self.value.is_none() && self.headers.is_empty()
    }
}

/// The reason why a letter cannot be replayed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotReplayable {
    #[error("the letter does not name its record's source: no consumer of this system wrote it")]
    NoSource,
    #[error(
        "the letter holds only the beginning of a record of {whole_bytes} bytes: give its value"
    )]
    Cut { whole_bytes: u64 },
    #[error("header '{0}' is the letter's own and cannot be corrected")]
    OwnHeader(String),
}

impl DeadLetter {
    /// Reads any record of a dead-letter topic.
    pub fn read(record: IncomingRecord) -> Self {
        let text = |name: &'static str| record.header(name).ok().flatten().map(str::to_owned);
        let number = |name| text(name).and_then(|value| value.parse().ok());
        // A letter must not send its record to a topic whose dead letters are in another topic.
        let topic =
            text(header::DEAD_LETTER_TOPIC).filter(|topic| dead_letters_of(topic) == record.topic);
        let source = topic.and_then(|topic| {
            Some(Source {
                topic,
                partition: text(header::DEAD_LETTER_PARTITION)?.parse().ok()?,
                offset: number(header::DEAD_LETTER_OFFSET)?,
                time: text(header::DEAD_LETTER_TIME),
            })
        });
        Self {
            written_at_ms: record.timestamp_ms,
            reason: text(header::DEAD_LETTER_REASON).unwrap_or_default(),
            detail: text(header::DEAD_LETTER_DETAIL).unwrap_or_default(),
            saga: text(header::SAGA_ID).and_then(|id| id.parse().ok()),
            cut_from_bytes: text(header::DEAD_LETTER_CUT).and_then(|size| size.parse().ok()),
            source,
            headers: record
                .headers
                .iter()
                .filter(|(name, _)| !name.starts_with(PREFIX))
                .collect(),
            key: record.key.unwrap_or_default(),
            payload: record.payload.unwrap_or_default(),
            id: LetterId {
                topic: record.topic,
                partition: record.partition,
                offset: record.offset,
            },
        }
    }

    /// Returns the last value of a header of the record, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers.get(name)?).ok()
    }

    /// Returns the record with `correction`, addressed to the place that it came from. Its message id is unchanged, so
    /// a consumer that has handled the record meanwhile recognizes it.
    pub fn replay(&self, correction: &Correction) -> Result<OutgoingRecord, NotReplayable> {
        let source = self.source.as_ref().ok_or(NotReplayable::NoSource)?;
        let own = |name: &&String| name.starts_with(PREFIX) || *name == header::REPLAYED_FROM;
        if let Some(name) = correction.headers.keys().find(own) {
            return Err(NotReplayable::OwnHeader(name.clone()));
        }
        let payload = match (&correction.value, self.cut_from_bytes) {
            (Some(value), _) => value.clone(),
            (None, None) => self.payload.clone(),
            (None, Some(whole_bytes)) => return Err(NotReplayable::Cut { whole_bytes }),
        };
        let mut headers: Headers = self
            .headers
            .iter()
            .filter(|(name, _)| {
                *name != header::REPLAYED_FROM && !correction.headers.contains_key(*name)
            })
            .collect();
        headers.extend(&correction.headers);
        headers.push(header::REPLAYED_FROM, self.id.to_string());
        Ok(OutgoingRecord {
            topic: source.topic.clone(),
            partition: Some(source.partition),
            key: self.key.clone(),
            headers,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::dead_letter;

    const SAGA: &str = "01990000-0000-7000-8000-000000000001";

    fn record() -> IncomingRecord {
        IncomingRecord {
            topic: "order.commands".to_owned(),
            partition: 1,
            offset: 7,
            timestamp_ms: 1_700_000_000_000,
            key: Some(SAGA.into()),
            headers: [(header::SAGA_ID, SAGA), (header::ATTEMPT, "x")].into(),
            payload: Some(b"{".to_vec()),
        }
    }

    /// Returns the letter as it is stored in the dead-letter topic.
    fn letter(of: &IncomingRecord) -> IncomingRecord {
        let written = dead_letter(of, "bad_header", "why");
        IncomingRecord {
            topic: written.topic,
            partition: 0,
            offset: 3,
            timestamp_ms: 1_700_000_001_000,
            key: Some(written.key),
            headers: written.headers,
            payload: Some(written.payload),
        }
    }

    #[test]
    fn a_letter_is_decoded_into_its_record_reason_and_source() {
        let read = DeadLetter::read(letter(&record()));
        assert_eq!(read.id.to_string(), "order.commands.dlq/0/3");
        assert_eq!(
            (read.reason.as_str(), read.detail.as_str()),
            ("bad_header", "why")
        );
        let source = read.source.clone().unwrap();
        assert_eq!(
            (source.topic.as_str(), source.partition, source.offset),
            ("order.commands", 1, 7)
        );
        assert_eq!(read.saga, Some(SAGA.parse().unwrap()));
        assert_eq!(read.headers, record().headers);
        assert_eq!((read.cut_from_bytes, &read.payload[..]), (None, &b"{"[..]));
    }

    #[test]
    fn a_replay_is_sent_to_the_source_of_the_record_and_names_its_letter() {
        let replayed = DeadLetter::read(letter(&record()))
            .replay(&Correction::default())
            .unwrap();
        let mut expected = record().headers;
        expected.push(header::REPLAYED_FROM, "order.commands.dlq/0/3");
        assert_eq!(replayed.headers, expected);
        assert_eq!(
            (replayed.topic.as_str(), replayed.partition),
            ("order.commands", Some(1))
        );
        assert_eq!(
            (replayed.key, replayed.payload),
            (SAGA.into(), b"{".to_vec())
        );
    }

    #[test]
    fn a_correction_replaces_the_value_and_headers() {
        let correction = Correction {
            value: Some(b"{}".to_vec()),
            headers: [(header::ATTEMPT.to_owned(), "1".to_owned())].into(),
        };
        let replayed = DeadLetter::read(letter(&record()))
            .replay(&correction)
            .unwrap();
        assert_eq!(replayed.payload, b"{}");
        let attempts: Vec<_> = replayed
            .headers
            .iter()
            .filter(|(name, _)| *name == header::ATTEMPT)
            .collect();
        assert_eq!(attempts, [(header::ATTEMPT, &b"1"[..])]);
    }

    fn refuse(letter: IncomingRecord, correction: &Correction, expected: &NotReplayable) {
        let refused = DeadLetter::read(letter).replay(correction).unwrap_err();
        assert_eq!(refused, *expected);
    }

    #[test]
    fn a_letter_that_cannot_be_replayed_is_refused() {
        let none = Correction::default();
        refuse(record(), &none, &NotReplayable::NoSource);
        let forged = IncomingRecord {
            topic: "payment.commands.dlq".to_owned(),
            ..letter(&record())
        };
        refuse(forged, &none, &NotReplayable::NoSource);
        let mut huge = letter(&record());
        huge.headers.push(header::DEAD_LETTER_CUT, "9");
        refuse(huge.clone(), &none, &NotReplayable::Cut { whole_bytes: 9 });
        let value = Correction {
            value: Some(b"{}".to_vec()),
            ..Correction::default()
        };
        assert!(DeadLetter::read(huge).replay(&value).is_ok());
        let own = header::DEAD_LETTER_REASON.to_owned();
        let correction = Correction {
            headers: [(own.clone(), String::new())].into(),
            ..Correction::default()
        };
        refuse(
            letter(&record()),
            &correction,
            &NotReplayable::OwnHeader(own),
        );
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for text in ["saga.inputs.dlq/0/42", "x/2147483647/9223372036854775807"] {
            let id: LetterId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
        for text in [
            "", "x", "x/0", "/0/1", "x/-1/0", "x/0/-1", "x/0/1/2", "x/a/1",
        ] {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }
}
