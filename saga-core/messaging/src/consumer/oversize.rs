//! Replaces a dead letter that is too large for its topic, because it contains the whole record and additional headers.

use saga_core::message::{Headers, OutgoingRecord};

/// Prefix of all headers that give the reason for a dead letter, and the place of its record.
const OWN_HEADERS: &str = "dead-letter-";
/// Header that says that the record's content exists only in the source topic.
const CONTENT_HEADER: &str = "dead-letter-content";
const LEFT_BEHIND: &[u8] = b"left in the source topic";
/// Longest key that is kept; a longer one is left out, too.
const KEY_LIMIT_BYTES: usize = 1_024;

/// Returns a pointer to send in place of `record` if that is a dead letter: its place and its reason, without the
/// content.
pub(super) fn pointer(record: &OutgoingRecord) -> Option<OutgoingRecord> {
    let mut headers: Headers = record
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with(OWN_HEADERS))
        .collect();
    if headers.is_empty() {
        return None;
    }
    headers.push(CONTENT_HEADER, LEFT_BEHIND);
    let mut key = record.key.clone();
    if key.len() > KEY_LIMIT_BYTES {
        key.clear();
    }
    Some(OutgoingRecord {
        topic: record.topic.clone(),
        partition: record.partition,
        key,
        headers,
        payload: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::message::header;

    fn record(headers: &[&str]) -> OutgoingRecord {
        OutgoingRecord {
            topic: "t.dlq".to_owned(),
            partition: None,
            key: b"key".to_vec(),
            headers: headers.iter().map(|name| (name, "value")).collect(),
            payload: vec![b'x'; 2_000_000],
        }
    }

    #[test]
    fn a_pointer_keeps_where_and_why_and_leaves_the_content() {
        let letter = record(&[
            "ce_id",
            header::DEAD_LETTER_TOPIC,
            header::DEAD_LETTER_REASON,
        ]);
        let pointer = pointer(&letter).unwrap();
        let names: Vec<&str> = pointer.headers.iter().map(|(name, _)| name).collect();
        let kept = [
            header::DEAD_LETTER_TOPIC,
            header::DEAD_LETTER_REASON,
            CONTENT_HEADER,
        ];
        assert_eq!(names, kept);
        assert_eq!((&*pointer.topic, &*pointer.key), ("t.dlq", &b"key"[..]));
        assert!(pointer.payload.is_empty());
    }

    #[test]
    fn a_record_that_is_no_dead_letter_has_no_pointer() {
        assert_eq!(pointer(&record(&["ce_id"])), None);
    }
}
