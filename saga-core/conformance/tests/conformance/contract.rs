//! Checks that the records which `saga-core/PARTICIPANTS.md` shows are records of this system, to the last header.

use saga_core::{
    ids::Timestamp,
    message::{Command, Headers, IncomingRecord, Input, OutgoingRecord, header},
};
use std::borrow::Cow;

const PAGE: &str = include_str!("../../../PARTICIPANTS.md");

/// Returns the records that the page shows: one line per header, an empty line, the value.
fn shown() -> Vec<IncomingRecord> {
    PAGE.split("```")
        .filter_map(|block| block.strip_prefix("text\nkey "))
        .map(|block| {
            let (head, value) = block.split_once("\n\n").expect("an empty line");
            let mut lines = head.lines();
            let key = lines.next().expect("a key").trim();
            let headers = lines.map(|line| {
                let (name, value) = line.split_once(' ').expect("a value");
                (name, value.trim())
            });
            IncomingRecord {
                topic: String::new(),
                partition: 0,
                offset: 0,
                timestamp_ms: 0,
                key: Some(key.as_bytes().to_vec()),
                headers: headers.collect(),
                payload: Some(value.trim().as_bytes().to_vec()),
            }
        })
        .collect()
}

fn sorted(headers: &Headers) -> Vec<(&str, Cow<'_, str>)> {
    let mut sorted: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(value)))
        .collect();
    sorted.sort();
    sorted
}

/// Asserts that the written record has the same key, the same headers and the same value.
fn check(record: &IncomingRecord, written: &OutgoingRecord) {
    assert_eq!(record.key.as_deref(), Some(&written.key[..]));
    assert_eq!(sorted(&record.headers), sorted(&written.headers));
    let value: serde_json::Value = record.json().expect("JSON");
    assert_eq!(
        Ok(value),
        serde_json::from_slice(&written.payload).map_err(drop)
    );
}

#[test]
fn the_exchange_that_is_shown_is_one_of_this_system() {
    let records = shown();
    let [asked, answered] = &records[..] else {
        panic!("{} records are shown, not two", records.len());
    };
    let time =
        |record: &IncomingRecord| -> Timestamp { record.parsed(header::CE_TIME).expect("a time") };
    let source = |record: &IncomingRecord| {
        record
            .required(header::CE_SOURCE)
            .expect("a source")
            .to_owned()
    };

    let command = Command::decode(asked).expect("a command");
    check(asked, &command.encode("", &source(asked), time(asked)));
    let Ok(Input::Reply(reply)) = Input::decode(answered) else {
        panic!("the answer is not one");
    };
    assert_eq!(reply.saga_id, command.saga_id);
    check(
        answered,
        &reply.encode(&command.reply_to, &source(answered), time(answered)),
    );
}
