//! Sagas of `place-order-payment-first`: charge → reserve and sell (pivot) → confirm.

use super::order;
use crate::place_order_payment_first;
use saga_testkit::{SagaTest, command, error, failure, given, not_done, success};
use serde_json::{Value, json};

fn charging() -> SagaTest {
    given(&place_order_payment_first())
        .input(order())
        .expect(command("payment.charge").to("payment"))
        .expect_nothing_more()
}

fn selling() -> SagaTest {
    charging()
        .reply(success(json!({})))
        .expect(
            command("inventory.reserve")
                .to("inventory")
                .carrying(json!({
                    "orderId": "o-1", "final": true,
                    "items": [{"productId": "p-1", "quantity": 2, "unitPriceMinor": 1250}],
                })),
        )
        .expect_nothing_more()
}

fn resolving() -> SagaTest {
    let mut saga = selling();
    for attempt in 2..=5 {
        saga = saga
            .reply(error("database", "gone away"))
            .back_off()
            .expect(command("inventory.reserve").attempt(attempt));
    }
    saga.reply(error("database", "gone away")).expect(
        command("inventory.reserve.resolve").carrying(json!({
            "orderId": "o-1", "final": true,
            "items": [{"productId": "p-1", "quantity": 2, "unitPriceMinor": 1250}],
        })),
    )
}

fn cancels_the_order(saga: SagaTest, code: &str) {
    saga.expect(command("order.cancel"))
        .expect_nothing_more()
        .reply(success(Value::Null))
        .expect_compensated_because(code);
}

fn refunds_and_cancels(saga: SagaTest, code: &str) {
    let saga = saga
        .expect(command("payment.refund").carrying(json!({"orderId": "o-1"})))
        .expect_nothing_more()
        .reply(success(json!({})));
    cancels_the_order(saga, code);
}

fn confirms(saga: SagaTest) {
    saga.expect(command("order.confirm"))
        .expect_nothing_more()
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn every_step_done_completes_the_saga() {
    confirms(selling().reply(success(json!({}))));
}

#[test]
fn a_declined_payment_only_cancels_the_order() {
    cancels_the_order(
        charging().reply(failure("payment_declined", "no")),
        "payment_declined",
    );
}

#[test]
fn out_of_stock_refunds_before_it_cancels_the_order() {
    refunds_and_cancels(
        selling().reply(failure("out_of_stock", "none")),
        "out_of_stock",
    );
}

#[test]
fn a_charge_that_is_never_answered_is_refunded() {
    let mut saga = charging();
    for attempt in 2..=5 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("payment.charge").attempt(attempt));
    }
    refunds_and_cancels(saga.time_out(), "timed_out");
}

#[test]
fn a_charge_that_errors_out_is_refunded() {
    let mut saga = charging();
    for attempt in 2..=5 {
        saga = saga
            .reply(error("gateway", "busy"))
            .back_off()
            .expect(command("payment.charge").attempt(attempt));
    }
    refunds_and_cancels(saga.reply(error("gateway", "busy")), "retries_exhausted");
}

#[test]
fn the_stocks_unknown_outcome_is_asked_for_and_decides() {
    confirms(resolving().reply(success(json!({}))));
    refunds_and_cancels(resolving().reply(not_done()), "retries_exhausted");
    refunds_and_cancels(
        resolving().reply(failure("out_of_stock", "none")),
        "out_of_stock",
    );
}

#[test]
fn a_cancel_is_decided_by_the_progress_of_the_saga() {
    refunds_and_cancels(charging().cancel().expect_accepted(), "cancelled");
    let pending = || {
        selling()
            .cancel()
            .expect_pending()
            .expect(command("inventory.reserve.resolve"))
    };
    confirms(pending().reply(success(json!({}))));
    refunds_and_cancels(pending().reply(not_done()), "cancelled");
    confirms(
        selling()
            .reply(success(json!({})))
            .cancel()
            .expect_refused("past_pivot"),
    );
}

#[test]
fn a_deadline_is_decided_by_the_progress_of_the_saga() {
    refunds_and_cancels(charging().deadline(), "deadline");
    let asked = || {
        selling()
            .deadline()
            .expect(command("inventory.reserve.resolve"))
    };
    confirms(asked().reply(success(json!({}))));
    refunds_and_cancels(asked().reply(not_done()), "deadline");
    confirms(selling().reply(success(json!({}))).deadline());
}

#[test]
fn a_failed_confirmation_parks_and_a_retry_completes() {
    let confirming = || {
        selling()
            .reply(success(json!({})))
            .expect(command("order.confirm"))
    };
    let retried = |parked: SagaTest, attempt| {
        parked
            .retry()
            .expect(command("order.confirm").attempt(attempt))
            .reply(success(Value::Null))
            .expect_completed();
    };
    retried(
        confirming()
            .reply(failure("nope", "no"))
            .expect_parked("confirm-order", "contract_broken"),
        2,
    );
    let mut saga = confirming();
    for attempt in 2..=10 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("order.confirm").attempt(attempt));
    }
    retried(
        saga.time_out().expect_parked("confirm-order", "timed_out"),
        11,
    );
}

#[test]
fn a_failed_refund_parks_and_a_retry_compensates() {
    let saga = selling()
        .reply(failure("out_of_stock", "none"))
        .expect(command("payment.refund"))
        .reply(failure("nope", "the gateway forgot"))
        .expect_parked("charge-payment", "contract_broken")
        .expect_nothing_more()
        .retry();
    refunds_and_cancels(saga, "out_of_stock");
}
