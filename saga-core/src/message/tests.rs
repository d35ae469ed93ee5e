//! Tests that messages are read as they were written, and that an unreadable record gives the reason.

use super::*;
use crate::{
    ids::{SagaId, Timestamp},
    instance::{LifecycleEvent, LifecycleKind, LifecycleMessage},
};
use serde_json::{Value, json};
use std::borrow::Cow;
use uuid::Uuid;

fn saga_id() -> SagaId {
    SagaId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001))
}

fn at() -> Timestamp {
    Timestamp::from_timestamp_millis(1_767_225_600_123).unwrap()
}

fn trace() -> Trace {
    Trace {
        correlation_id: "order-7".to_owned(),
        traceparent: Some("00-aa-bb-01".to_owned()),
    }
}

/// Returns the record as a consumer gets it.
fn arrived(record: OutgoingRecord) -> IncomingRecord {
    IncomingRecord {
        topic: record.topic,
        partition: record.partition.unwrap_or(0),
        offset: 5,
        timestamp_ms: 0,
        key: Some(record.key),
        headers: record.headers,
        payload: Some(record.payload),
    }
}

fn command() -> Command {
    Command {
        saga_id: saga_id(),
        step: "reserve-stock".to_owned(),
        direction: Direction::Forward,
        attempt: 2,
        command_type: "inventory.reserve".to_owned(),
        payload: json!({"orderId": "o-1"}),
        save_failure: true,
        reply_to: ReplyTo {
            topic: "saga.inputs".to_owned(),
            partition: 3,
        },
        floor: Timestamp::from_timestamp_millis(1_000),
        trace: trace(),
    }
}

fn reply(outcome: Outcome, payload: Value) -> Reply {
    Reply {
        saga_id: saga_id(),
        step: "reserve-stock".to_owned(),
        direction: Direction::Forward,
        attempt: 2,
        reply_type: "inventory.reserved".to_owned(),
        outcome,
        payload,
        trace: trace(),
    }
}

fn timer() -> TimerDue {
    TimerDue {
        saga_id: saga_id(),
        kind: TimerKind::Timeout,
        part: Some(CommandRef {
            step: "reserve-stock".to_owned(),
            direction: Direction::Compensation,
            attempt: 4,
        }),
        verdict: PickUpStatus::PickedUp,
        picked_up_at: Some(at()),
        trace: trace(),
    }
}

fn start() -> StartSaga {
    StartSaga {
        saga_id: saga_id(),
        start_type: "order.created".to_owned(),
        definition: "place-order".to_owned(),
        business_key: Some("o-1".to_owned()),
        input: json!({"orderId": "o-1"}),
        trace: trace(),
    }
}

fn action() -> OperatorAction {
    OperatorAction {
        saga_id: saga_id(),
        action_id: Uuid::from_u128(9),
        kind: ActionKind::Cancel,
        actor: "ann".to_owned(),
        reason: "changed her mind".to_owned(),
        if_version: Some(4),
        trace: trace(),
    }
}

#[test]
fn a_command_is_keyed_by_its_saga_and_decodes_unchanged() {
    for direction in [
        Direction::Forward,
        Direction::Compensation,
        Direction::Resolve,
    ] {
        let sent = Command {
            direction,
            ..command()
        };
        let record = sent.encode("inventory.commands", "/orchestrator", at());
        assert_eq!(record.key, saga_id().to_string().into_bytes());
        assert_eq!(record.partition, None);
        let record = arrived(record);
        assert_eq!(record.required(header::CE_ID), Ok(sent.id().as_str()));
        assert_eq!(
            record.required(header::CE_TIME),
            Ok("2026-01-01T00:00:00.123Z")
        );
        assert_eq!(Command::decode(&record), Ok(sent));
    }
}

#[test]
fn every_input_is_sent_to_the_home_partition_and_decodes_unchanged() {
    let topic = "saga.inputs";
    let reply_to = command().reply_to;
    let fault = json!({"code": "out_of_stock", "message": "none left"});
    let replies = [
        reply(Outcome::Success, json!({"items": []})),
        reply(Outcome::Failure, fault.clone()),
        reply(Outcome::Error, fault),
        reply(Outcome::NotDone, Value::Null),
    ];
    let mut inputs: Vec<(Input, OutgoingRecord)> = replies
        .into_iter()
        .map(|reply| {
            let record = reply.encode(&reply_to, "/inventory", at());
            (Input::Reply(reply), record)
        })
        .collect();
    let deadline = TimerDue {
        kind: TimerKind::Deadline,
        part: None,
        picked_up_at: None,
        ..timer()
    };
    for timer in [timer(), deadline] {
        let record = timer.encode(topic, Some(3), "/orchestrator", at());
        inputs.push((Input::Timer(timer), record));
    }
    inputs.push((
        Input::Start(start()),
        start().encode(topic, 3, "/order", at()),
    ));
    inputs.push((
        Input::Operator(action()),
        action().encode(topic, Some(3), "/order", at()),
    ));
    for (input, record) in inputs {
        assert_eq!(record.partition, Some(3), "{input:?}");
        assert_eq!(Input::decode(&arrived(record)).as_ref(), Ok(&input));
        assert_eq!(input.saga_id(), saga_id());
    }
}

#[test]
fn ids_are_stable_across_resends_and_unique_per_message() {
    let saga = saga_id();
    for (id, expected) in [
        (command().id(), "reserve-stock/forward/2"),
        (
            reply(Outcome::Success, Value::Null).id(),
            "reserve-stock/forward/success",
        ),
        (
            reply(Outcome::Error, Value::Null).id(),
            "reserve-stock/forward/error/2",
        ),
        (
            timer().id(),
            "timer/reserve-stock/compensation/4/timeout/pickedup",
        ),
        (start().id(), "start"),
    ] {
        assert_eq!(id, format!("{saga}/{expected}"));
    }
}

#[test]
fn a_lifecycle_event_is_a_cloud_event_with_the_sagas_sequence() {
    let message = LifecycleMessage {
        saga_id: saga_id(),
        definition: "place-order".into(),
        definition_version: 1,
        business_key: Some("o-1".into()),
        correlation_id: "order-7".into(),
        event: Cow::Owned(LifecycleEvent {
            sequence: 12,
            at: at(),
            kind: LifecycleKind::StepNotDone {
                step: "charge-payment".to_owned(),
            },
        }),
    };
    let record = arrived(message.encode("saga.events", "/orchestrator", &trace()));
    assert_eq!(record.required(header::CE_TYPE), Ok("saga.step_not_done"));
    assert_eq!(record.required(header::CE_SUBJECT), Ok("o-1"));
    assert_eq!(record.required(header::SEQUENCE), Ok("12"));
    assert_eq!(record.json(), Ok(message));
}

#[test]
fn a_fault_of_any_shape_is_read() {
    let shaped = reply(
        Outcome::Failure,
        json!({"code": "declined", "message": "no"}),
    );
    assert_eq!(shaped.fault(), Fault::new("declined", "no"));
    let foreign = reply(Outcome::Error, json!({"error": "broken"}));
    assert_eq!(
        foreign.fault(),
        Fault::new("error", r#"{"error":"broken"}"#)
    );
    let talkative = json!({"code": "c".repeat(300), "message": "ä".repeat(3_000)});
    let fault = reply(Outcome::Error, talkative).fault();
    assert_eq!(
        (fault.code.chars().count(), fault.message.chars().count()),
        (100, 1_000)
    );
}

/// Returns the command's record with one header changed or removed.
fn with_header(name: &str, value: Option<&str>) -> IncomingRecord {
    let mut record = arrived(command().encode("inventory.commands", "/orchestrator", at()));
    record.headers.remove(name);
    if let Some(value) = value {
        record.headers.push(name, value);
    }
    record
}

#[test]
fn a_command_that_cannot_be_read_says_which_header_is_at_fault() {
    for (name, value, reason) in [
        (header::SAGA_ID, None, "missing_header"),
        (header::SAGA_ID, Some("seven"), "bad_header"),
        (header::STEP, Some(""), "bad_header"),
        (header::DIRECTION, Some("sideways"), "bad_header"),
        (header::ATTEMPT, Some("-1"), "bad_header"),
        (header::SAVE_FAILURE, Some("perhaps"), "bad_header"),
        (header::REPLY_TOPIC, None, "missing_header"),
        (header::REPLY_PARTITION, Some("x"), "bad_header"),
        (header::FLOOR, Some("long ago"), "bad_header"),
    ] {
        let error = Command::decode(&with_header(name, value)).unwrap_err();
        assert_eq!(error.reason(), reason, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    let without_floor = Command::decode(&with_header(header::FLOOR, None)).unwrap();
    assert_eq!(without_floor.floor, None);
}

#[test]
fn missing_values_and_invalid_json_are_distinct_errors() {
    let mut record = with_header(header::FLOOR, None);
    record.payload = None;
    assert_eq!(Command::decode(&record), Err(DecodeError::NoPayload));
    record.payload = Some(b"{".to_vec());
    assert_eq!(
        Command::decode(&record).unwrap_err().reason(),
        "bad_payload"
    );
}

#[test]
fn a_start_a_timer_and_an_action_are_objects_and_a_reply_may_be_anything() {
    let wrapped = Value::from(r#"{"orderId": "o-1"}"#).to_string();
    let is_refused = |mut record: OutgoingRecord, value: &str| {
        record.payload = value.as_bytes().to_vec();
        let error = Input::decode(&arrived(record)).unwrap_err();
        assert_eq!(error.reason(), "bad_payload", "{value}: {error}");
        assert!(
            error.to_string().contains("an object was expected"),
            "{value}: {error}"
        );
    };
    for value in [wrapped.as_str(), " []", "[{}]", "42", "null", "true"] {
        is_refused(start().encode("saga.inputs", 3, "/order-svc", at()), value);
        is_refused(
            timer().encode("saga.inputs", Some(3), "/orchestrator", at()),
            value,
        );
        is_refused(
            action().encode("saga.inputs", Some(3), "/orchestrator", at()),
            value,
        );
        let reply_to = command().reply_to;
        let mut record = reply(Outcome::Success, json!({})).encode(&reply_to, "/inventory", at());
        record.payload = value.as_bytes().to_vec();
        assert!(Input::decode(&arrived(record)).is_ok(), "{value}");
    }
    let mut members = timer().encode("saga.inputs", Some(3), "/orchestrator", at());
    let id = saga_id().to_string();
    members.payload = json!([id, "deadline", null, "unknown", {"correlation_id": "x"}])
        .to_string()
        .into_bytes();
    assert_eq!(
        Input::decode(&arrived(members)).unwrap_err().reason(),
        "bad_payload"
    );
}

#[test]
fn a_number_that_does_not_fit_is_named_with_its_pointer() {
    let mut record = start().encode("saga.inputs", 3, "/order-svc", at());
    record.payload = br#"{"parcel": 123456789012345678901234}"#.to_vec();
    let error = Input::decode(&arrived(record)).unwrap_err();
    assert_eq!(error.reason(), "number_out_of_range");
    assert!(error.to_string().starts_with("at /parcel: "), "{error}");
}

#[test]
fn a_record_that_is_no_input_is_unrecognised() {
    let command = with_header(header::FLOOR, None);
    assert_eq!(Input::decode(&command), Err(DecodeError::Unrecognised));
    let mut outcome =
        arrived(reply(Outcome::Success, Value::Null).encode(&self::command().reply_to, "/x", at()));
    outcome.headers.remove(header::OUTCOME);
    outcome.headers.push(header::OUTCOME, "maybe");
    assert_eq!(Input::decode(&outcome).unwrap_err().reason(), "bad_header");
}

#[test]
fn the_last_of_equal_headers_counts() {
    let mut record = with_header(header::ATTEMPT, Some("1"));
    record.headers.push(header::ATTEMPT, "8");
    assert_eq!(Command::decode(&record).unwrap().attempt, 8);
}

#[test]
fn a_trace_never_makes_a_message_large() {
    let long = Command {
        trace: Trace {
            correlation_id: "ä".repeat(100_000),
            traceparent: Some("0".repeat(100_000)),
        },
        ..command()
    };
    let record = arrived(long.encode("inventory.commands", "/test", at()));
    let read = Command::decode(&record).unwrap();
    assert_eq!(read.trace.correlation_id, "ä".repeat(200));
    assert_eq!(read.trace.traceparent, None);
}
