//! Waits of sagas: a command that is not picked up differs from a command that is not answered.

use super::order;
use crate::place_order;
use saga_testkit::{command, error, failure, given, success};
use serde_json::{Value, json};

#[test]
fn a_queued_command_neither_times_out_nor_is_sent_again() {
    given(&place_order())
        .input(order())
        .expect(command("inventory.reserve"))
        .expect_waiting(
            "reply",
            "waiting for inventory to answer inventory.reserve (attempt 1), sent at",
        )
        .queued()
        .expect_events(&["command_queued"])
        .expect_waiting(
            "queued",
            "not picked up by inventory, since 2026-01-01T00:00:00Z: inventory.reserve attempt 1",
        )
        .queued_in_vain()
        .expect_nothing_more()
        .picked_up()
        .expect_events(&["command_picked_up"])
        .expect_waiting("reply", "picked up at")
        .picked_up_again_in_vain()
        .times_out()
        .expect_events(&["step_timed_out"])
        .expect_waiting(
            "backoff",
            "because attempt 1 went wrong: inventory did not answer",
        )
        .back_off()
        .expect(command("inventory.reserve").attempt(2));
}

#[test]
fn a_lost_command_is_sent_again_with_the_same_attempt() {
    given(&place_order())
        .input(order())
        .expect(command("inventory.reserve").attempt(1))
        .queued()
        .gone()
        .expect_events(&["command_sent"])
        .expect(command("inventory.reserve").attempt(1))
        .reply(success(json!({})))
        .expect(command("payment.charge"));
}

#[test]
fn a_late_timer_of_an_attempt_that_was_answered_is_stale() {
    let saga = given(&place_order())
        .input(order())
        .expect(command("inventory.reserve"))
        .picked_up()
        .reply(error("database", "gone away"));
    saga.expect_waiting(
        "backoff",
        "retrying inventory.reserve at 2026-01-01T00:00:0",
    )
    .picked_up_again_in_vain()
    .back_off()
    .expect(command("inventory.reserve").attempt(2));
}

#[test]
fn the_main_obstacle_is_named_first_and_the_others_are_counted() {
    given(&place_order())
        .input(order())
        .expect(command("inventory.reserve"))
        .reply(success(json!({})))
        .expect(command("payment.charge"))
        .cancel()
        .expect_waiting(
            "resolve",
            "asking payment whether payment.charge was done, because of cancelled",
        )
        .expect(command("payment.charge.resolve"))
        .queued()
        .expect_waiting("resolve", "not picked up by payment, since")
        .reply(success(json!({})))
        .expect(command("inventory.complete"))
        .expect(command("order.confirm"))
        .expect_waiting("reply", "inventory.complete (attempt 1)")
        .expect_waiting("reply", "(and 1 more)")
        .reply(failure("nope", "no such order"))
        .expect_waiting(
            "person",
            "needs a person: the action of 'confirm-order': a retriable step must not fail",
        )
        .reply(success(Value::Null))
        .of("inventory.complete")
        .reply(success(Value::Null))
        .expect_waiting("nothing", "completed at 2026-01-01T00:00:")
        .expect_completed();
}
