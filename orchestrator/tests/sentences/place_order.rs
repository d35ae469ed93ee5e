//! Sagas of `place-order`: reserve → charge (pivot) → complete ∥ confirm.

use super::order;
use crate::place_order;
use saga_testkit::{SagaTest, command, error, failure, given, not_done, success};
use serde_json::{Value, json};

fn reserving() -> SagaTest {
    given(&place_order())
        .input(order())
        .expect(command("inventory.reserve").to("inventory").attempt(1))
        .expect_nothing_more()
}

fn charging() -> SagaTest {
    reserving()
        .reply(success(json!({"orderId": "o-1"})))
        .expect(command("payment.charge").to("payment").attempt(1))
        .expect_nothing_more()
}

/// Returns a saga whose charge has used up its attempts, so that its outcome is being asked for.
fn resolving() -> SagaTest {
    let mut saga = charging();
    for attempt in 2..=5 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("payment.charge").attempt(attempt));
    }
    saga.time_out()
        .expect(command("payment.charge.resolve").to("payment").attempt(1))
        .expect_nothing_more()
}

fn charged() -> SagaTest {
    charging()
        .reply(success(json!({"gatewayReference": "g-1"})))
        .expect(command("inventory.complete").to("inventory"))
        .expect(command("order.confirm").to("order"))
        .expect_nothing_more()
}

fn cancels_the_order(saga: SagaTest, code: &str) {
    saga.expect(command("order.cancel").to("order"))
        .expect_nothing_more()
        .reply(success(json!({"status": "CANCELLED"})))
        .expect_compensated_because(code);
}

fn releases_and_cancels(saga: SagaTest, code: &str) {
    let saga = saga
        .expect(command("inventory.release").carrying(json!({"orderId": "o-1"})))
        .expect_nothing_more()
        .reply(success(json!({})));
    cancels_the_order(saga, code);
}

fn completes(saga: SagaTest) {
    saga.expect(command("inventory.complete"))
        .reply(success(Value::Null))
        .expect(command("order.confirm"))
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn every_step_done_completes_the_saga() {
    given(&place_order())
        .input(order())
        .expect(command("inventory.reserve").carrying(json!({
            "orderId": "o-1",
            "items": [{"productId": "p-1", "quantity": 2, "unitPriceMinor": 1250}],
        })))
        .reply(success(json!({})))
        .expect_events(&["step_succeeded", "command_sent"])
        .expect(command("payment.charge").carrying(json!({
            "orderId": "o-1", "customerId": "c-1", "amountMinor": 2500, "currency": "EUR",
        })))
        .reply(success(json!({})))
        .expect_events(&["step_succeeded", "command_sent", "command_sent"])
        .expect(command("order.confirm").carrying(json!({"orderId": "o-1"})))
        .reply(success(json!({})))
        .expect(command("inventory.complete").carrying(json!({"orderId": "o-1"})))
        .reply(success(json!({})))
        .expect_events(&["step_succeeded", "completed"])
        .expect_completed();
}

#[test]
fn out_of_stock_only_cancels_the_order_with_its_reason() {
    reserving()
        .reply(failure("out_of_stock", "p-1 is sold out"))
        .expect_events(&["step_failed", "compensation_started", "command_sent"])
        .expect(command("order.cancel").carrying(json!({
            "orderId": "o-1",
            "cause": {"step": "reserve-stock", "code": "out_of_stock", "message": "p-1 is sold out"},
        })))
        .reply(success(Value::Null))
        .expect_events(&["step_compensated", "compensated"])
        .expect_compensated_because("out_of_stock");
}

#[test]
fn a_declined_payment_releases_the_stock_before_it_cancels_the_order() {
    releases_and_cancels(
        charging().reply(failure("payment_declined", "over the limit")),
        "payment_declined",
    );
}

#[test]
fn a_reservation_that_errors_out_is_released_because_it_may_have_happened() {
    let mut saga = reserving();
    for attempt in 2..=5 {
        saga = saga
            .reply(error("database", "gone away"))
            .expect_events(&["step_errored"])
            .back_off()
            .expect(command("inventory.reserve").attempt(attempt));
    }
    let saga = saga.reply(error("database", "gone away")).expect_events(&[
        "step_errored",
        "compensation_started",
        "command_sent",
    ]);
    releases_and_cancels(saga, "retries_exhausted");
}

#[test]
fn a_reservation_that_is_never_answered_is_released() {
    let mut saga = reserving();
    for attempt in 2..=5 {
        saga = saga
            .time_out()
            .expect_events(&["step_timed_out"])
            .expect_waiting("backoff", "inventory did not answer inventory.reserve")
            .back_off()
            .expect_events(&["command_sent"])
            .expect(command("inventory.reserve").attempt(attempt));
    }
    releases_and_cancels(saga.time_out(), "timed_out");
}

#[test]
fn a_late_success_of_a_given_up_reservation_is_recorded_once() {
    let mut saga = reserving();
    for attempt in 2..=5 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("inventory.reserve").attempt(attempt));
    }
    saga.time_out()
        .of("inventory.reserve")
        .reply(success(json!({"late": true})))
        .expect_events(&["late_reply"])
        .reply_in_vain(success(json!({"late": true})))
        .reply_in_vain(failure("out_of_stock", "too late"))
        .expect(command("inventory.release"))
        .reply(success(Value::Null))
        .expect(command("order.cancel"))
        .reply(success(Value::Null))
        .expect_compensated();
}

#[test]
fn success_and_failure_count_from_any_attempt_and_error_only_from_its_own() {
    reserving()
        .reply(error("database", "gone away"))
        .reply_in_vain(error("database", "gone away"))
        .back_off()
        .expect(command("inventory.reserve").attempt(2))
        .stale_reply(1, error("database", "gone away"))
        .reply_of_attempt(1, success(json!({})))
        .expect(command("payment.charge"))
        .reply(error("gateway", "busy"))
        .reply_of_attempt(1, failure("payment_declined", "it was decided after all"))
        .expect(command("inventory.release"));
}

#[test]
fn duplicates_change_nothing() {
    charged()
        .of("payment.charge")
        .reply_in_vain(success(json!({})))
        .reply_in_vain(failure("payment_declined", "no"))
        .of("inventory.reserve")
        .reply_in_vain(success(json!({})))
        .of("inventory.complete")
        .reply(success(Value::Null))
        .reply_in_vain(success(Value::Null))
        .of("order.confirm")
        .reply(success(Value::Null))
        .reply_in_vain(success(Value::Null))
        .deadline_in_vain()
        .expect_completed();
}

#[test]
fn a_charge_without_an_answer_is_asked_about_and_completes_if_it_was_done() {
    completes(
        resolving()
            .reply(success(json!({"gatewayReference": "g-1"})))
            .expect_events(&["step_succeeded", "command_sent", "command_sent"]),
    );
}

#[test]
fn a_charge_that_was_not_done_and_never_will_be_is_compensated() {
    releases_and_cancels(
        resolving().reply(not_done()).expect_events(&[
            "step_not_done",
            "compensation_started",
            "command_sent",
        ]),
        "timed_out",
    );
}

#[test]
fn a_charge_that_was_declined_unheard_is_compensated_for_that_reason() {
    releases_and_cancels(
        resolving().reply(failure("payment_declined", "over the limit")),
        "payment_declined",
    );
}

#[test]
fn a_resolve_is_repeated_without_limit() {
    let mut saga = resolving();
    for attempt in (2..40).step_by(2) {
        saga = saga
            .reply(error("gateway", "busy"))
            .expect_waiting("resolve", "retrying payment.charge.resolve")
            .back_off()
            .expect(command("payment.charge.resolve").attempt(attempt))
            .time_out()
            .back_off()
            .expect(command("payment.charge.resolve").attempt(attempt + 1));
    }
    completes(saga.reply(success(json!({}))));
}

#[test]
fn a_late_answer_of_the_charge_itself_settles_a_resolve() {
    completes(
        resolving()
            .of("payment.charge")
            .reply_in_vain(error("gateway", "busy"))
            .reply(success(json!({}))),
    );
    releases_and_cancels(
        resolving().of("payment.charge").reply(not_done()),
        "timed_out",
    );
}

#[test]
fn a_refused_late_action_outside_a_resolve_is_stale() {
    charging().reply_in_vain(not_done());
}

#[test]
fn a_retriable_step_that_uses_up_its_attempts_parks_until_a_person_retries() {
    let mut saga = charged().of("order.confirm");
    for attempt in 2..=10 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("order.confirm").attempt(attempt));
    }
    saga.time_out()
        .expect_events(&["step_timed_out", "parked"])
        .expect_parked("confirm-order", "timed_out")
        .expect_waiting(
            "person",
            "order did not answer order.confirm in 10 attempts",
        )
        .of("inventory.complete")
        .reply(success(Value::Null))
        .expect_parked("confirm-order", "timed_out")
        .retry()
        .expect_accepted()
        .expect_events(&["action_decided", "unparked", "command_sent"])
        .expect(command("order.confirm").attempt(11))
        .reply(error("database", "gone away"))
        .back_off()
        .expect(command("order.confirm").attempt(12))
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn a_late_success_unparks() {
    let mut saga = charged().of("order.confirm");
    for attempt in 2..=10 {
        saga = saga
            .reply(error("database", "gone away"))
            .back_off()
            .expect(command("order.confirm").attempt(attempt));
    }
    saga.reply(error("database", "gone away"))
        .expect_parked("confirm-order", "retries_exhausted")
        .reply_of_attempt(3, success(Value::Null))
        .expect_events(&["step_succeeded", "unparked"])
        .of("inventory.complete")
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn a_retriable_step_that_fails_broke_its_contract_and_parks() {
    charged()
        .of("order.confirm")
        .time_out()
        .back_off()
        .expect(command("order.confirm").attempt(2))
        .stale_reply(1, failure("nope", "an unsaved failure of another attempt"))
        .reply(failure("nope", "cancelled already"))
        .expect_events(&["step_failed", "parked"])
        .expect_parked("confirm-order", "contract_broken")
        .cancel()
        .expect_refused("past_pivot")
        .retry()
        .expect(command("order.confirm").attempt(3))
        .reply(success(Value::Null))
        .of("inventory.complete")
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn two_parked_steps_are_retried_together_and_each_unparks_alone() {
    charged()
        .of("order.confirm")
        .reply(failure("a", "a"))
        .of("inventory.complete")
        .reply(failure("b", "b"))
        .expect_parked("confirm-order", "contract_broken")
        .of("order.confirm")
        .reply(success(Value::Null))
        .expect_parked("complete-stock", "contract_broken")
        .retry()
        .expect(command("inventory.complete").attempt(2))
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn a_compensation_that_uses_up_its_attempts_parks_until_a_person_retries() {
    let mut saga = charging()
        .reply(failure("payment_declined", "no"))
        .expect(command("inventory.release").attempt(1));
    for attempt in 2..=10 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("inventory.release").attempt(attempt));
    }
    let saga = saga
        .time_out()
        .expect_parked("reserve-stock", "timed_out")
        .expect_nothing_more()
        .cancel()
        .expect_refused("already_compensating")
        .retry()
        .expect(command("inventory.release").attempt(11))
        .reply(success(Value::Null));
    cancels_the_order(saga, "payment_declined");
}

#[test]
fn a_compensation_that_fails_broke_its_contract_and_parks() {
    reserving()
        .reply(failure("out_of_stock", "none"))
        .expect(command("order.cancel"))
        .reply(failure("nope", "shipped already"))
        .expect_parked("create-order", "contract_broken")
        .reply_in_vain(failure("nope", "shipped already"))
        .retry()
        .expect(command("order.cancel").attempt(2))
        .reply(success(Value::Null))
        .expect_compensated_because("out_of_stock");
}

#[test]
fn retry_of_a_saga_that_is_not_parked_is_refused() {
    charging()
        .retry()
        .expect_refused("not_parked")
        .expect_events(&["action_decided"]);
}

#[test]
fn a_cancel_before_the_pivot_compensates_at_once() {
    let saga = reserving()
        .cancel()
        .expect_accepted()
        .expect_events(&["action_decided", "compensation_started", "command_sent"])
        .cancel()
        .expect_accepted()
        .expect_events(&["action_decided"]);
    releases_and_cancels(saga, "cancelled");
}

#[test]
fn a_cancel_with_the_charge_in_flight_is_decided_by_its_outcome() {
    let pending = || {
        charging()
            .cancel()
            .expect_pending()
            .expect_events(&["action_decided", "resolve_started", "command_sent"])
            .expect(command("payment.charge.resolve"))
            .cancel()
            .expect_pending()
            .expect_events(&["action_decided"])
    };
    let saga = pending().reply(success(json!({}))).expect_events(&[
        "step_succeeded",
        "action_decided",
        "action_decided",
        "command_sent",
        "command_sent",
    ]);
    completes(saga);
    let saga = pending().reply(not_done()).expect_events(&[
        "step_not_done",
        "action_decided",
        "action_decided",
        "compensation_started",
        "command_sent",
    ]);
    releases_and_cancels(saga, "cancelled");
    releases_and_cancels(
        pending().reply(failure("payment_declined", "no")),
        "payment_declined",
    );
}

#[test]
fn a_cancel_between_two_attempts_of_the_charge_resolves_too() {
    releases_and_cancels(
        charging()
            .reply(error("gateway", "busy"))
            .cancel()
            .expect_pending()
            .expect(command("payment.charge.resolve"))
            .reply(not_done()),
        "cancelled",
    );
}

#[test]
fn only_so_many_cancels_wait_for_the_charge() {
    let mut saga = charging();
    for _ in 0..8 {
        saga = saga.cancel().expect_pending();
    }
    saga.cancel().expect_refused("already_pending");
}

#[test]
fn a_cancel_after_the_charge_is_refused() {
    charged()
        .cancel()
        .expect_refused("past_pivot")
        .expect_events(&["action_decided"])
        .of("inventory.complete")
        .reply(success(Value::Null))
        .of("order.confirm")
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn a_cancel_of_a_saga_that_compensates_for_another_reason_is_refused() {
    reserving()
        .reply(failure("out_of_stock", "none"))
        .cancel()
        .expect_refused("already_compensating");
}

#[test]
fn the_deadline_before_the_pivot_compensates() {
    releases_and_cancels(
        reserving().queued().deadline().deadline_in_vain(),
        "deadline",
    );
}

#[test]
fn the_deadline_with_the_charge_in_flight_asks_for_its_outcome() {
    let asked = || {
        charging()
            .deadline()
            .expect_events(&["resolve_started", "command_sent"])
            .expect(command("payment.charge.resolve"))
            .deadline_in_vain()
    };
    completes(asked().reply(success(json!({}))));
    releases_and_cancels(asked().reply(not_done()), "deadline");
}

#[test]
fn the_deadline_is_only_noted_once_it_can_decide_nothing() {
    charged()
        .deadline()
        .expect_events(&["deadline_passed"])
        .deadline_in_vain();
    resolving().deadline().expect_events(&["deadline_passed"]);
    reserving()
        .reply(failure("out_of_stock", "none"))
        .deadline()
        .expect_events(&["deadline_passed"]);
}
