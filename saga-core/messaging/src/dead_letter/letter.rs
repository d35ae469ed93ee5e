//! Writes dead letters.

use super::{PREFIX, reason};
use crate::kafka::RECORD_LIMIT_BYTES;
use metrics::counter;
use saga_core::{
    ids::Timestamp,
    message::{Headers, IncomingRecord, OutgoingRecord, header, topic::dead_letters_of},
};

/// Longest `dead-letter-detail`: enough for any error's text, and too short to make a letter much larger than its
/// record.
pub const DETAIL_LIMIT_BYTES: usize = 1_000;

/// Largest letter, headers included: the limit of the producer and of every dead-letter topic, less room for the
/// framing.
pub const LETTER_LIMIT_BYTES: usize = RECORD_LIMIT_BYTES - 16 * 1024;

/// Parts of the key and of the headers that are kept if a record is too large for a letter; the value gets the rest.
const KEY_KEPT_BYTES: usize = 16 * 1024;
const HEADERS_KEPT_BYTES: usize = 512 * 1024;
/// Size of a header beside its name and value.
const HEADER_FRAMING_BYTES: usize = 10;

/// Returns the dead letter of `record` and counts it. `reason` is for programs (see [`reason`](super::reason)),
/// `detail` for people.
pub fn dead_letter(record: &IncomingRecord, reason: &str, detail: &str) -> OutgoingRecord {
    counter!(
        "saga_dead_letters_total",
        "topic" => record.topic.clone(),
        "reason" => reason::label(reason)
    )
    .increment(1);
    let mut headers: Headers = record
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(PREFIX))
        .collect();
    let mut key = record.key.clone().unwrap_or_default();
    let mut payload = record.payload.clone().unwrap_or_default();
    let marks = marks(record, reason, detail);
    let size_bytes = key.len() + payload.len() + size_of(&headers);
    let room_bytes = LETTER_LIMIT_BYTES - size_of(&marks);
    if size_bytes > room_bytes {
        cut(&mut key, &mut headers, &mut payload, room_bytes);
        headers.push(header::DEAD_LETTER_CUT, size_bytes.to_string());
    }
    headers.extend(marks.iter());
    OutgoingRecord {
        topic: dead_letters_of(&record.topic),
        partition: None,
        key,
        headers,
        payload,
    }
}

/// Returns the headers that describe the letter's record.
fn marks(record: &IncomingRecord, reason: &str, detail: &str) -> Headers {
    let mut marks = Headers::default();
    marks.push(header::DEAD_LETTER_REASON, reason);
    marks.push(header::DEAD_LETTER_DETAIL, bounded(detail));
    marks.push(header::DEAD_LETTER_TOPIC, &record.topic);
    marks.push(header::DEAD_LETTER_PARTITION, record.partition.to_string());
    marks.push(header::DEAD_LETTER_OFFSET, record.offset.to_string());
    if let Some(at) = Timestamp::from_timestamp_millis(record.timestamp_ms) {
        marks.push(header::DEAD_LETTER_TIME, at.to_rfc3339());
    }
    marks
}

fn size_of(headers: &Headers) -> usize {
    headers.iter().map(size_of_one).sum()
}

fn size_of_one((name, value): (&str, &[u8])) -> usize {
    name.len() + value.len() + HEADER_FRAMING_BYTES
}

/// Cuts each part to its limit. A header is kept whole or not at all, because half a header would have another meaning.
fn cut(key: &mut Vec<u8>, headers: &mut Headers, payload: &mut Vec<u8>, room_bytes: usize) {
    key.truncate(KEY_KEPT_BYTES);
    let mut left_bytes = HEADERS_KEPT_BYTES;
    let kept = headers.iter().filter(|header| {
        let size_bytes = size_of_one(*header);
        let fits = size_bytes <= left_bytes;
        if fits {
            left_bytes -= size_bytes;
        }
        fits
    });
    *headers = kept.collect();
    // The header that says that the letter was cut takes a few bytes, too.
    let taken_bytes = key.len() + size_of(headers) + 64;
    payload.truncate(room_bytes.saturating_sub(taken_bytes));
}

fn bounded(detail: &str) -> &str {
    detail
        .get(..detail.floor_char_boundary(DETAIL_LIMIT_BYTES))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{DeadLetter, LetterId};

    fn record() -> IncomingRecord {
        IncomingRecord {
            topic: "saga.inputs".to_owned(),
            partition: 3,
            offset: 42,
            timestamp_ms: 1_700_000_000_000,
            key: Some(b"key".to_vec()),
            headers: [("ce_id", [0xff, 0])].into(),
            payload: Some(b"{".to_vec()),
        }
    }

    fn header_of(letter: &OutgoingRecord, name: &str) -> Option<String> {
        let value = letter.headers.get(name)?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_dead_letter_keeps_the_record_and_its_source() {
        let letter = dead_letter(&record(), "bad_payload", "EOF while parsing");
        assert_eq!(letter.topic, "saga.inputs.dlq");
        assert_eq!(
            (&letter.key[..], &letter.payload[..]),
            (&b"key"[..], &b"{"[..])
        );
        assert_eq!(letter.headers.get("ce_id"), Some(&[0xff, 0][..]));
        for (name, expected) in [
            (header::DEAD_LETTER_REASON, Some("bad_payload")),
            (header::DEAD_LETTER_TOPIC, Some("saga.inputs")),
            (header::DEAD_LETTER_PARTITION, Some("3")),
            (header::DEAD_LETTER_OFFSET, Some("42")),
            (header::DEAD_LETTER_TIME, Some("2023-11-14T22:13:20+00:00")),
            (header::DEAD_LETTER_CUT, None),
        ] {
            assert_eq!(header_of(&letter, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn detail_is_cut_between_characters() {
        let letter = dead_letter(&record(), "x", &"ä".repeat(DETAIL_LIMIT_BYTES));
        let length = |letter| header_of(letter, header::DEAD_LETTER_DETAIL).unwrap().len();
        assert_eq!(length(&letter), DETAIL_LIMIT_BYTES);
        let odd = dead_letter(
            &record(),
            "x",
            &format!("a{}", "ä".repeat(DETAIL_LIMIT_BYTES)),
        );
        assert_eq!(length(&odd), DETAIL_LIMIT_BYTES - 1);
    }

    #[test]
    fn a_replayed_letter_that_fails_again_has_one_set_of_headers() {
        let letter = dead_letter(&record(), "x", "first");
        let again = IncomingRecord {
            headers: letter.headers,
            ..record()
        };
        let second = dead_letter(&again, "x", "second");
        let reasons = second
            .headers
            .iter()
            .filter(|(key, _)| *key == header::DEAD_LETTER_REASON);
        assert_eq!(reasons.count(), 1);
        assert_eq!(dead_letters_of("saga.inputs.dlq"), "saga.inputs.dlq");
    }

    /// When compressed, such a record fits into a topic with a limit of a few kilobytes.
    fn check_cut(huge: &IncomingRecord, whole_bytes: usize) {
        let letter = dead_letter(huge, "bad_payload", "huge");
        let size = letter.key.len() + letter.payload.len() + size_of(&letter.headers);
        assert!(size <= LETTER_LIMIT_BYTES, "{size}");
        assert_eq!(
            header_of(&letter, header::DEAD_LETTER_CUT),
            Some(whole_bytes.to_string())
        );
        assert_eq!(header_of(&letter, "ce_type").as_deref(), Some("x"));
        let id: LetterId = "saga.inputs.dlq/0/1".parse().unwrap();
        let read = DeadLetter::read(IncomingRecord {
            topic: id.topic,
            partition: 0,
            offset: 1,
            timestamp_ms: 0,
            key: Some(letter.key),
            headers: letter.headers,
            payload: Some(letter.payload),
        });
        assert_eq!(read.cut_from_bytes, Some(whole_bytes as u64));
    }

    #[test]
    fn a_record_larger_than_any_letter_is_cut_and_the_letter_says_so() {
        const MIB: usize = 1024 * 1024;
        let small = IncomingRecord {
            key: None,
            headers: [("ce_type", "x")].into(),
            ..record()
        };
        let framing = 7 + 1 + HEADER_FRAMING_BYTES;
        let payload = IncomingRecord {
            payload: Some(vec![b'a'; 10 * MIB]),
            ..small.clone()
        };
        check_cut(&payload, 10 * MIB + framing);
        let key = IncomingRecord {
            key: Some(vec![b'a'; 10 * MIB]),
            ..small.clone()
        };
        check_cut(&key, 10 * MIB + 1 + framing);
        let headers = IncomingRecord {
            headers: [("", vec![b'a'; 10 * MIB]), ("ce_type", b"x".to_vec())].into(),
            ..small
        };
        check_cut(&headers, 10 * MIB + 1 + HEADER_FRAMING_BYTES + framing);
    }

    #[test]
    fn a_record_that_just_fits_is_not_cut() {
        let marks = size_of(&marks(&record(), "x", "y"));
        let fits = IncomingRecord {
            key: None,
            headers: Headers::default(),
            payload: Some(vec![b'a'; LETTER_LIMIT_BYTES - marks]),
            ..record()
        };
        let letter = dead_letter(&fits, "x", "y");
        assert_eq!(header_of(&letter, header::DEAD_LETTER_CUT), None);
        assert_eq!(letter.payload.len(), LETTER_LIMIT_BYTES - marks);
    }
}
