//! Reads the id that the broker gave a topic when it was created.
//!
//! A topic that is deleted and recreated has the same name and possibly the same offsets, but another id. librdkafka
//! continues at its former offset (a `FIXME` in its `rd_kafka_topic_metadata_update`): if the topic's end is lower, it
//! begins again; if it is higher, records are skipped silently.

use super::{
    QUERY_TIMEOUT,
    context::Context,
    error::{Refusal, classify},
};
use crate::log::LogError;
use rdkafka::{
    bindings as rd,
    client::Client,
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use std::ffi::{CStr, CString};

/// Answer of brokers that have no topic ids.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Returns the id of `topic` as Kafka's own tools print it; empty for a broker that gives none. Blocks.
pub(super) fn topic_id(client: &Client<Context>, topic: &str) -> Result<String, LogError> {
    let Ok(name) = CString::new(topic) else {
        return Err(Refusal::NoTopic(topic.to_owned()).into());
    };
    match describe(client, &name) {
        Ok(id) if id == NONE => Ok(String::new()),
        Ok(id) => Ok(id),
        Err(code) => {
            let error = KafkaError::MetadataFetch(RDKafkaErrorCode::from(code));
            Err(classify(error, topic))
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the client library knows the id and its Rust binding does not show it"
)]
fn describe(client: &Client<Context>, topic: &CStr) -> Result<String, RDKafkaRespErr> {
    let mut names = [topic.as_ptr()];
    let timeout_ms = QUERY_TIMEOUT.as_millis() as i32;
    // SAFETY: the client outlives the call; the collection, the queue and the event are created, used and destroyed
    // here once each, the event only if there is one. Data that belongs to the event is copied before.
    unsafe {
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let queue = rd::rd_kafka_queue_new(client.native_ptr());
        rd::rd_kafka_DescribeTopics(client.native_ptr(), topics, std::ptr::null(), queue);
        rd::rd_kafka_TopicCollection_destroy(topics);
        let event = rd::rd_kafka_queue_poll(queue, timeout_ms);
        rd::rd_kafka_queue_destroy(queue);
        if event.is_null() {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT);
        }
        let described = described(event);
        rd::rd_kafka_event_destroy(event);
        described
    }
}

/// Returns the id of the only topic that was asked for.
#[expect(unsafe_code, reason = "see `describe`")]
unsafe fn described(event: *mut rd::rd_kafka_event_t) -> Result<String, RDKafkaRespErr> {
    // SAFETY: `event` is the result of a request for one topic; all data read from it is checked for null, and copied.
    unsafe {
        let failed = rd::rd_kafka_event_error(event);
        if failed != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed);
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG);
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 || topics.is_null() {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        }
        let topic = *topics;
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            let code = rd::rd_kafka_error_code(error);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(code);
            }
        }
        let text = rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(topic));
        if text.is_null() {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG);
        }
        Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
