//! Tests parallel steps, and sagas without a pivot.

use saga_core::definition::SagaDefinition;
use saga_testkit::{command, definition, failure, given, success};
use serde_json::{Value, json};

/// Returns a definition with two parallel bookings, then a taxi, and no pivot.
fn trip() -> SagaDefinition {
    definition(
        "trip.yaml",
        "
name: trip
version: 1
deadline: 1h
steps:
  - {name: hotel, kind: compensatable, participant: hotel, command: hotel.book,
     compensation: {command: hotel.cancel, input: {booking: \"$.steps.hotel.id\"}, retry: {attempts: 1}}}
  - {name: flight, kind: compensatable, participant: flight, command: flight.book, after: [], retry: {attempts: 1},
     compensation: {command: flight.cancel, retry: {attempts: 1}}}
  - {name: taxi, kind: compensatable, participant: taxi, command: taxi.book, after: [hotel, flight],
     input: {\"from\": \"$.steps.flight.gate\", \"to\": \"$.steps.hotel.address\"},
     compensation: {command: taxi.cancel}}
",
    )
}

#[test]
fn parallel_steps_start_together_and_a_join_waits_for_both() {
    given(&trip())
        .input(json!({}))
        .expect(command("hotel.book"))
        .expect(command("flight.book"))
        .reply(success(json!({"gate": 7})))
        .expect_nothing_more()
        .of("hotel.book")
        .reply(success(json!({"id": 1, "address": "here"})))
        .expect(command("taxi.book").carrying(json!({"from": 7, "to": "here"})))
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn a_sibling_in_flight_is_compensated_as_unknown_and_steps_not_begun_are_skipped() {
    given(&trip())
        .input(json!({}))
        .expect(command("hotel.book"))
        .expect(command("flight.book"))
        .reply(failure("full", "no seat"))
        .expect(command("hotel.cancel").carrying(json!({"booking": null})))
        .expect_nothing_more()
        .of("hotel.book")
        .reply(success(json!({"id": 1})))
        .expect_events(&["late_reply"])
        .expect_nothing_more()
        .of("hotel.cancel")
        .reply(success(Value::Null))
        .expect_compensated_because("full");
}

#[test]
fn a_compensation_reads_its_own_steps_result_when_it_is_known() {
    given(&trip())
        .input(json!({}))
        .expect(command("hotel.book"))
        .reply(success(json!({"id": 1})))
        .expect(command("flight.book"))
        .reply(failure("full", "no seat"))
        .expect(command("hotel.cancel").carrying(json!({"booking": 1})))
        .reply(success(Value::Null))
        .expect_compensated();
}

#[test]
fn compensations_wait_for_those_of_started_descendants_and_run_side_by_side() {
    given(&trip())
        .input(json!({}))
        .expect(command("hotel.book"))
        .reply(success(json!({"id": 1})))
        .expect(command("flight.book"))
        .reply(success(json!({})))
        .expect(command("taxi.book"))
        .cancel()
        .expect_accepted()
        .expect(command("taxi.cancel"))
        .expect_nothing_more()
        .reply(success(Value::Null))
        .expect(command("hotel.cancel"))
        .expect(command("flight.cancel"))
        .reply(success(Value::Null))
        .of("hotel.cancel")
        .reply(success(Value::Null))
        .expect_compensated_because("cancelled");
}

#[test]
fn a_parked_compensation_does_not_hold_up_an_independent_one() {
    given(&trip())
        .input(json!({}))
        .expect(command("hotel.book"))
        .reply(success(json!({"id": 1})))
        .expect(command("flight.book"))
        .cancel()
        .expect(command("hotel.cancel"))
        .expect(command("flight.cancel"))
        .time_out()
        .expect_parked("flight", "timed_out")
        .of("hotel.cancel")
        .reply(success(Value::Null))
        .expect_parked("flight", "timed_out")
        .of("flight.cancel")
        .reply(success(Value::Null))
        .expect_events(&["step_compensated", "unparked", "compensated"])
        .expect_compensated();
}
