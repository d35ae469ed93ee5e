//! A record that cannot be processed is kept where it can be seen, corrected and replayed.
//!
//! It goes to `<topic>.dlq` with its key, value and headers as they were, so that replaying it is producing it again
//! without the `dead-letter-*` headers. Nothing in the letter depends on when it was written: a record that is
//! dead-lettered again after a crash yields the same letter.

use metrics::counter;
use saga_core::{
    ids::Timestamp,
    message::{IncomingRecord, OutgoingRecord, header},
};

/// Longest `dead-letter-detail`: enough for any error's text, and no way to make a letter much larger than its record.
pub const DETAIL_LIMIT_BYTES: usize = 1_000;

const SUFFIX: &str = ".dlq";

/// All headers of a dead letter that its record did not have begin with this.
const PREFIX: &str = "dead-letter-";

/// The dead-letter topic of `topic`; a dead letter that cannot be processed stays in its own.
pub fn topic_of(topic: &str) -> String {
    let base = topic.strip_suffix(SUFFIX).unwrap_or(topic);
    format!("{base}{SUFFIX}")
}

/// The dead letter of `record`: `reason` for programs (`bad_payload`), `detail` for people. Counts it too.
pub fn dead_letter(record: &IncomingRecord, reason: &str, detail: &str) -> OutgoingRecord {
    counter!(
        "saga_dead_letters_total",
        "topic" => record.topic.clone(),
        "reason" => reason.to_owned()
    )
    .increment(1);
    let mut headers: Vec<(String, Vec<u8>)> = record
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(PREFIX))
        .cloned()
        .collect();
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.into()));
    add(header::DEAD_LETTER_REASON, reason);
    add(header::DEAD_LETTER_DETAIL, bounded(detail));
    add(header::DEAD_LETTER_TOPIC, &record.topic);
    add(header::DEAD_LETTER_PARTITION, &record.partition.to_string());
    add(header::DEAD_LETTER_OFFSET, &record.offset.to_string());
    if let Some(at) = Timestamp::from_timestamp_millis(record.timestamp_ms) {
        add(header::DEAD_LETTER_TIME, &at.to_rfc3339());
    }
    OutgoingRecord {
        topic: topic_of(&record.topic),
        partition: None,
        key: record.key.clone().unwrap_or_default(),
        headers,
        payload: record.payload.clone().unwrap_or_default(),
    }
}

fn bounded(detail: &str) -> &str {
    detail
        .get(..detail.floor_char_boundary(DETAIL_LIMIT_BYTES))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> IncomingRecord {
        IncomingRecord {
            topic: "saga.inputs".to_owned(),
            partition: 3,
            offset: 42,
            timestamp_ms: 1_700_000_000_000,
            key: Some(b"key".to_vec()),
            headers: vec![("ce_id".to_owned(), vec![0xff, 0])],
            payload: Some(b"{".to_vec()),
        }
    }

    #[test]
    fn dead_letter_keeps_the_record_and_says_where_it_stood() {
        let letter = dead_letter(&record(), "bad_payload", "EOF while parsing");
        assert_eq!(letter.topic, "saga.inputs.dlq");
        assert_eq!(
            (&letter.key[..], &letter.payload[..]),
            (&b"key"[..], &b"{"[..])
        );
        assert_eq!(letter.headers[0], ("ce_id".to_owned(), vec![0xff, 0]));
        let value = |name: &str| {
            let found = letter.headers.iter().find(|(key, _)| key == name);
            String::from_utf8(found.unwrap().1.clone()).unwrap()
        };
        assert_eq!(value(header::DEAD_LETTER_REASON), "bad_payload");
        assert_eq!(value(header::DEAD_LETTER_TOPIC), "saga.inputs");
        assert_eq!(value(header::DEAD_LETTER_PARTITION), "3");
        assert_eq!(value(header::DEAD_LETTER_OFFSET), "42");
        assert_eq!(value(header::DEAD_LETTER_TIME), "2023-11-14T22:13:20+00:00");
    }

    #[test]
    fn detail_is_cut_between_characters() {
        let letter = dead_letter(&record(), "x", &"ä".repeat(DETAIL_LIMIT_BYTES));
        let detail = &letter.headers[2].1;
        assert_eq!(detail.len(), DETAIL_LIMIT_BYTES);
        assert!(std::str::from_utf8(detail).is_ok());
        let odd = dead_letter(
            &record(),
            "x",
            &format!("a{}", "ä".repeat(DETAIL_LIMIT_BYTES)),
        );
        assert_eq!(odd.headers[2].1.len(), DETAIL_LIMIT_BYTES - 1);
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
            .filter(|(key, _)| key == header::DEAD_LETTER_REASON);
        assert_eq!(reasons.count(), 1);
        assert_eq!(topic_of("saga.inputs.dlq"), "saga.inputs.dlq");
    }
}
