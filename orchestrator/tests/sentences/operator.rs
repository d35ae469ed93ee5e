//! Operators' actions: each action in a test of its own, and then every action in every situation.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::{order, place_order};
use saga_core::{instance::ActionVerdict, message::ActionKind, transition::legal_actions};
use saga_testkit::{SagaTest, command, definition, error, failure, given, not_done, success};
use serde_json::{Value, json};

/// Returns a saga whose stock is being reserved.
fn reserving() -> SagaTest {
    given(&place_order())
        .input(order())
        .expect(command("inventory.reserve"))
}

/// Returns a saga whose pivot is in flight.
fn charging() -> SagaTest {
    reserving()
        .reply(success(json!({})))
        .expect(command("payment.charge"))
}

/// Returns a saga whose pivot was not sent, because its payload is larger than the broker accepts.
fn charge_too_large() -> SagaTest {
    reserving()
        .payload_limit(20)
        .reply(success(json!({})))
        .expect_nothing_more()
        .expect_parked("charge-payment", "payload_too_large")
}

/// Returns a saga after its pivot: both retriable steps are in flight, and `order.confirm` is answered next.
fn charged() -> SagaTest {
    charging()
        .reply(success(json!({"paymentId": 7})))
        .expect(command("inventory.complete"))
        .expect(command("order.confirm"))
}

/// Returns a saga whose order cannot be confirmed, and whose other steps are done.
fn confirm_parked() -> SagaTest {
    charged()
        .reply(failure("nope", "no such order"))
        .expect_parked("confirm-order", "contract_broken")
        .of("inventory.complete")
        .reply(success(Value::Null))
        .of("order.confirm")
}

/// Passes the deadline and all attempts to ask for the charge's outcome, without an answer.
fn asked_in_vain(saga: SagaTest) -> SagaTest {
    let mut saga = saga.deadline().expect(command("payment.charge.resolve"));
    for attempt in 2..=5 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("payment.charge.resolve").attempt(attempt));
    }
    saga.time_out()
        .expect_parked("charge-payment", "pivot_unresolved")
}

/// Returns a compensating saga whose stock cannot be released.
fn release_parked() -> SagaTest {
    charging()
        .reply(failure("payment_declined", "no"))
        .expect(command("inventory.release"))
        .reply(failure("nope", "no such reservation"))
        .expect_parked("reserve-stock", "contract_broken")
}

#[test]
fn a_step_under_way_is_completed_once_its_participant_has_said_that_it_is_not_done() {
    confirm_parked()
        .expect_legal(&[
            "retry",
            "complete confirm-order",
            "skip confirm-order",
            "abandon",
        ])
        .complete("confirm-order", json!({"by": "hand"}))
        .expect_pending()
        .expect_events(&[
            "action_decided",
            "unparked",
            "resolve_started",
            "command_sent",
        ])
        .expect(command("order.confirm.resolve").attempt(1))
        .expect_waiting("resolve", "because tester wants to complete it")
        .expect_legal(&["abandon"])
        .reply(error("database", "gone away"))
        .back_off()
        .expect(command("order.confirm.resolve").attempt(2))
        .reply(not_done())
        .expect_events(&[
            "step_not_done",
            "action_decided",
            "step_completed",
            "completed",
        ])
        .expect_completed();
}

#[test]
fn a_step_completed_by_its_participant_keeps_its_own_result() {
    let saga = confirm_parked()
        .complete("confirm-order", json!({"by": "hand"}))
        .expect(command("order.confirm.resolve"))
        .reply(success(json!({"by": "the service"})))
        .expect_events(&["step_succeeded", "action_decided", "completed"])
        .expect_completed();
    let result = saga.saga().steps[4].result.clone();
    assert_eq!(result, Some(json!({"by": "the service"}).into()));
}

#[test]
fn a_skipped_step_is_left_out_once_its_participant_never_does_it() {
    confirm_parked()
        .skip("confirm-order")
        .expect_pending()
        .expect(command("order.confirm.resolve"))
        .reply(not_done())
        .expect_events(&[
            "step_not_done",
            "action_decided",
            "step_skipped",
            "completed",
        ])
        .expect_completed();
}

#[test]
fn a_step_that_has_not_begun_is_skipped_at_once_and_cannot_be_completed() {
    charging()
        .complete("confirm-order", Value::Null)
        .expect_refused("not_begun")
        .skip("confirm-order")
        .expect_accepted()
        .expect_events(&["action_decided", "step_skipped"])
        .reply(success(json!({})))
        .expect(command("inventory.complete"))
        .expect_nothing_more()
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn steps_after_a_step_skipped_early_still_wait_for_the_pivot() {
    let definition = definition(
        "chain.yaml",
        "
name: chain
version: 1
deadline: 1h
steps:
  - {name: pay, kind: pivot, participant: bank, command: bank.pay}
  - {name: pack, kind: retriable, participant: shop, command: shop.pack}
  - {name: tell, kind: retriable, participant: mail, command: mail.send}
",
    );
    given(&definition)
        .input(json!({}))
        .expect(command("bank.pay"))
        .skip("pack")
        .expect_accepted()
        .expect_nothing_more()
        .reply(success(Value::Null))
        .expect(command("mail.send"));
}

#[test]
fn a_pivot_completed_by_hand_continues_forward_and_decides_pending_cancels() {
    charging()
        .complete("charge-payment", json!({"paymentId": "by phone"}))
        .expect_pending()
        .expect(command("payment.charge.resolve"))
        .cancel()
        .expect_pending()
        .deadline()
        .expect_events(&["deadline_passed"])
        .reply(not_done())
        .expect_events(&[
            "step_not_done",
            "action_decided",
            "step_completed",
            "action_decided",
            "command_sent",
            "command_sent",
        ])
        .expect(command("inventory.complete"))
        .expect(command("order.confirm"))
        .cancel()
        .expect_refused("past_pivot");
}

#[test]
fn a_step_that_failed_can_be_completed_by_hand() {
    charging()
        .complete("charge-payment", Value::Null)
        .expect(command("payment.charge.resolve"))
        .reply(failure("payment_declined", "the saved reply"))
        .expect_events(&[
            "step_failed",
            "action_decided",
            "step_completed",
            "command_sent",
            "command_sent",
        ]);
}

#[test]
fn a_pivot_is_not_skipped_and_one_that_is_asked_for_is_not_completed() {
    charging()
        .skip("charge-payment")
        .expect_refused("is_pivot")
        .cancel()
        .expect_pending()
        .expect(command("payment.charge.resolve"))
        .complete("charge-payment", Value::Null)
        .expect_refused("resolving");
}

#[test]
fn compensate_starts_compensating_with_the_operator_as_its_reason() {
    reserving()
        .ask(ActionKind::Compensate)
        .expect_accepted()
        .expect(command("inventory.release"))
        .ask(ActionKind::Compensate)
        .expect_accepted()
        .expect_events(&["action_decided"])
        .cancel()
        .expect_refused("already_compensating")
        .reply(success(Value::Null))
        .expect(command("order.cancel"))
        .reply(success(Value::Null))
        .expect_compensated_because("operator");
}

#[test]
fn a_resolve_for_an_operator_ends_when_compensation_starts_and_the_step_is_compensated() {
    reserving()
        .skip("reserve-stock")
        .expect_pending()
        .expect(command("inventory.reserve.resolve"))
        .cancel()
        .expect_accepted()
        .expect_events(&[
            "action_decided",
            "compensation_started",
            "action_decided",
            "command_sent",
        ])
        .expect(command("inventory.release"))
        .of("inventory.reserve.resolve")
        .reply_in_vain(not_done())
        .of("inventory.release")
        .reply(success(Value::Null))
        .expect(command("order.cancel"))
        .reply(success(Value::Null))
        .expect_compensated_because("cancelled");
}

#[test]
fn a_skipped_compensation_lets_the_others_run_and_ends_the_saga_abandoned() {
    release_parked()
        .expect_legal(&[
            "retry",
            "skip the compensation of create-order",
            "skip the compensation of reserve-stock",
            "abandon",
        ])
        .skip("reserve-stock")
        .expect_refused("compensating")
        .skip_compensation("reserve-stock")
        .expect_accepted()
        .expect_events(&[
            "action_decided",
            "unparked",
            "compensation_skipped",
            "command_sent",
        ])
        .expect(command("order.cancel"))
        .reply(success(Value::Null))
        .expect_events(&["step_compensated", "abandoned"])
        .expect_abandoned();
}

#[test]
fn a_skipped_compensation_that_runs_after_all_is_taken_for_one() {
    charging()
        .reply(failure("payment_declined", "no"))
        .expect(command("inventory.release"))
        .skip_compensation("reserve-stock")
        .expect(command("order.cancel"))
        .of("inventory.release")
        .reply(success(Value::Null))
        .expect_events(&["step_compensated"])
        .of("order.cancel")
        .reply(success(Value::Null))
        .expect_compensated_because("payment_declined");
}

#[test]
fn an_abandoned_saga_sends_nothing_and_ignores_replies_and_deadlines() {
    charged()
        .ask(ActionKind::Abandon)
        .expect_accepted()
        .expect_events(&["action_decided", "abandoned"])
        .expect_waiting("nothing", "abandoned at ")
        .expect_legal(&[])
        .expect_abandoned()
        .reply_in_vain(success(Value::Null))
        .deadline_in_vain();
}

#[test]
fn abandoning_a_saga_decides_its_pending_actions() {
    charging()
        .cancel()
        .expect_pending()
        .expect(command("payment.charge.resolve"))
        .ask(ActionKind::Abandon)
        .expect_events(&["action_decided", "action_decided", "abandoned"])
        .expect_abandoned();
}

#[test]
fn a_retry_may_carry_a_corrected_input_which_later_attempts_keep() {
    let corrected = json!({"orderId": "the right one"});
    let retry = |step: Option<&str>| ActionKind::Retry {
        step: step.map(str::to_owned),
        input: Some(json!({"orderId": "the right one"})),
    };
    confirm_parked()
        .ask(retry(None))
        .expect_refused("no_step")
        .ask(retry(Some("complete-stock")))
        .expect_refused("not_parked")
        .ask(retry(Some("nobody")))
        .expect_refused("unknown_step")
        .ask(retry(Some("confirm-order")))
        .expect_accepted()
        .expect(
            command("order.confirm")
                .attempt(2)
                .carrying(corrected.clone()),
        )
        .reply(error("database", "gone away"))
        .back_off()
        .expect(command("order.confirm").attempt(3).carrying(corrected))
        .reply(success(Value::Null))
        .expect_completed();
}

#[test]
fn one_of_two_parked_steps_is_retried_alone() {
    charged()
        .reply(failure("a", "a"))
        .of("inventory.complete")
        .reply(failure("b", "b"))
        .expect_parked("confirm-order", "contract_broken")
        .ask(ActionKind::Retry {
            step: Some("confirm-order".to_owned()),
            input: None,
        })
        .expect(command("order.confirm").attempt(2))
        .expect_nothing_more()
        .expect_parked("complete-stock", "contract_broken");
}

#[test]
fn a_pivot_that_is_too_large_to_be_sent_can_be_corrected_or_compensated() {
    charge_too_large()
        .expect_events(&["step_succeeded", "parked"])
        .ask(ActionKind::Retry {
            step: Some("charge-payment".to_owned()),
            input: Some(json!({"small": true})),
        })
        .expect_accepted()
        .expect(
            command("payment.charge")
                .attempt(2)
                .carrying(json!({"small": true})),
        );
    charge_too_large()
        .ask(ActionKind::Compensate)
        .expect_pending()
        .expect_events(&[
            "action_decided",
            "unparked",
            "resolve_started",
            "command_sent",
        ])
        .expect(command("payment.charge.resolve").carrying(Value::Null))
        .reply(not_done())
        .expect(command("inventory.release"));
}

type Situation = (&'static str, fn() -> SagaTest);
/// Name of an action on a step, and a function that makes the action from the step's name.
type OnStep = (&'static str, fn(String) -> ActionKind);

/// Situations of `place-order`. The table has the code with which each action is answered in each of them. For an
/// action on a step, its columns are the starter's step, a compensatable one, the pivot, and a retriable one.
const SITUATIONS: [Situation; 14] = [
    ("reserving", reserving),
    ("reserve backing off", || {
        reserving().reply(error("database", "gone away"))
    }),
    ("charging", charging),
    ("charge asked for", || charging().cancel()),
    ("charge too large", charge_too_large),
    ("charge being completed", || {
        charging().complete("charge-payment", Value::Null)
    }),
    ("charge asked for in vain", || {
        asked_in_vain(charging().cancel())
    }),
    ("charge completed in vain", || {
        asked_in_vain(charging().complete("charge-payment", Value::Null))
    }),
    ("charged", charged),
    ("confirm parked", confirm_parked),
    ("confirm being skipped", || {
        confirm_parked().skip("confirm-order")
    }),
    ("releasing", || {
        charging().reply(failure("payment_declined", "no"))
    }),
    ("release parked", release_parked),
    ("cancelling the order", || {
        reserving().reply(failure("out_of_stock", "none"))
    }),
];

const STEPS: [&str; 4] = [
    "create-order",
    "reserve-stock",
    "charge-payment",
    "confirm-order",
];

fn verdict_of(saga: &SagaTest, kind: ActionKind) -> String {
    let verdict = saga.clone().ask(kind).verdict().cloned();
    match verdict.expect("every action of a live saga is decided") {
        ActionVerdict::Accepted { .. } => "yes".to_owned(),
        ActionVerdict::Pending => "later".to_owned(),
        ActionVerdict::Refused { code, .. } => code,
    }
}

/// Returns one line per situation and action: `situation | action | verdict`, or four verdicts for an action on a step.
fn table() -> String {
    let mut lines = Vec::new();
    for (name, saga) in SITUATIONS {
        let saga = saga();
        let whole = [
            ("retry", ActionKind::retry()),
            ("cancel", ActionKind::Cancel),
            ("compensate", ActionKind::Compensate),
            ("abandon", ActionKind::Abandon),
        ];
        for (action, kind) in whole {
            lines.push(format!("{name} | {action} | {}", verdict_of(&saga, kind)));
        }
        let of_step: [OnStep; 5] = [
            ("retry step", |step| ActionKind::Retry {
                step: Some(step),
                input: None,
            }),
            ("complete", |step| ActionKind::Complete {
                step,
                result: Value::Null,
            }),
            ("not done", |step| ActionKind::NotDone { step }),
            ("skip", |step| ActionKind::Skip {
                step,
                compensation: false,
            }),
            ("skip compensation", |step| ActionKind::Skip {
                step,
                compensation: true,
            }),
        ];
        for (action, make) in of_step {
            let verdicts = STEPS.map(|step| verdict_of(&saga, make(step.to_owned())));
            lines.push(format!("{name} | {action} | {}", verdicts.join(", ")));
        }
    }
    lines.join("\n") + "\n"
}

/// Compares the verdicts with the table in `operator.txt`. A rule that changes shows as a changed line. Run with
/// `UPDATE_ACTIONS=1` to write the table again.
#[test]
fn every_action_in_every_situation_is_answered_as_in_the_table() {
    let found = table();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sentences/operator.txt");
    if std::env::var_os("UPDATE_ACTIONS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn legal_actions_are_never_refused() {
    for (name, saga) in SITUATIONS {
        let saga = saga();
        let legal = legal_actions(&place_order(), saga.saga());
        assert!(!legal.is_empty(), "{name}");
        for action in &legal {
            let kind = asked(
                action.action.as_str(),
                action.step.as_deref(),
                action.compensation,
            );
            let verdict = verdict_of(&saga, kind);
            let expected = if action.pending { "later" } else { "yes" };
            assert_eq!(verdict, expected, "{name}: {action}");
        }
        let refused = saga.clone().ask(ActionKind::Retry {
            step: Some("nobody".to_owned()),
            input: None,
        });
        let Some(ActionVerdict::Refused { legal: named, .. }) = refused.verdict() else {
            panic!("{name}: nobody can be retried");
        };
        let legal: Vec<String> = legal.iter().map(ToString::to_string).collect();
        assert_eq!(*named, legal, "{name}");
    }
}

fn asked(action: &str, step: Option<&str>, compensation: bool) -> ActionKind {
    let mut asked = json!({"action": action, "compensation": compensation});
    if let Some(step) = step {
        asked["step"] = json!(step);
    }
    serde_json::from_value(asked).unwrap()
}

#[test]
fn an_action_without_a_reason_is_refused() {
    charging()
        .ask_without_reason(ActionKind::Abandon)
        .expect_refused("no_reason");
}
