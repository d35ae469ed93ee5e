//! Converts between the client's records and this project's records, and limits their size.

use rdkafka::{
    bindings,
    message::{BorrowedMessage, Header, Message, OwnedHeaders},
    types::RDKafkaRespErr,
};
use saga_core::message::{Headers, IncomingRecord};
use std::{ffi::CStr, ptr, slice};

/// Largest record. It is twice a broker's default of 1 MiB, so that the dead letter of a record of that size still fits
/// into a topic that allows it. Ordinary records are limited by their topic.
pub const RECORD_LIMIT_BYTES: usize = 2 * 1024 * 1024;

pub(super) fn incoming(message: &BorrowedMessage<'_>) -> IncomingRecord {
    IncomingRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers_of(message),
        payload: message.payload().map(<[u8]>::to_vec),
    }
}

/// Reads the headers of a message. The client library's own iterator panics at a header whose name is not UTF-8, so
/// that one such record would stop its partition forever. Here the invalid bytes become U+FFFD, and the record is
/// judged by its other headers.
#[expect(
    unsafe_code,
    reason = "only the C library gives a header's name as bytes"
)]
fn headers_of(message: &BorrowedMessage<'_>) -> Headers {
    let mut list = ptr::null_mut();
    // SAFETY: the message lives as long as it is borrowed, and the library only sets `list`.
    let found = unsafe { bindings::rd_kafka_message_headers(message.ptr(), &raw mut list) };
    if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Headers::default();
    }
    let mut headers = Headers::of_message();
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `list` belongs to the message and lives as long; beyond the end of `list` the library returns an
        // error.
        let found = unsafe {
            bindings::rd_kafka_header_get_all(
                list,
                headers.len(),
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )
        };
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return headers;
        }
        // SAFETY: a name ends in NUL, and is valid as long as the message.
        let name = unsafe { CStr::from_ptr(name) };
        let value = if value.is_null() {
            &[]
        } else {
            // SAFETY: the library returned the size of the value in bytes.
            unsafe { slice::from_raw_parts(value.cast::<u8>(), size) }
        };
        headers.push(&name.to_string_lossy(), value);
    }
}

pub(super) fn headers(headers: &Headers) -> OwnedHeaders {
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
