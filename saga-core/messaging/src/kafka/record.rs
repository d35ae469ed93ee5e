//! Between the client's records and ours.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use saga_core::message::IncomingRecord;

pub(super) fn incoming(message: &BorrowedMessage<'_>) -> IncomingRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.map_or_else(Vec::new, <[u8]>::to_vec),
                )
            })
            .collect()
    });
    IncomingRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        headers,
        payload: message.payload().map(<[u8]>::to_vec),
    }
}

pub(super) fn headers(headers: &[(String, Vec<u8>)]) -> OwnedHeaders {
    headers.iter().fold(
        OwnedHeaders::new_with_capacity(headers.len()),
        |all, (key, value)| {
            all.insert(Header {
                key,
                value: Some(value),
            })
        },
    )
}
