//! Tests a pivot whose outcome stays unknown: the saga asks for it with pauses and not without end, a person can
//! decide, and a late answer still counts.

use saga_core::{definition::SagaDefinition, instance::ActionVerdict, message::ActionKind};
use saga_testkit::{
    SagaTest, answered_resolve, command, definition, error, failure, given, not_done, success,
};
use serde_json::{Value, json};

/// Returns a definition; `resolve` sets how often the pivot's outcome is asked for.
fn trip(resolve: &str) -> SagaDefinition {
    let yaml = format!(
        "
name: trip
version: 1
deadline: 1h
steps:
  - {{name: book, kind: compensatable, participant: hotel, command: hotel.book,
     compensation: {{command: hotel.cancel}}}}
  - {{name: pay, kind: pivot, participant: bank, command: bank.pay,
     retry: {{attempts: 2, firstDelay: 4s, factor: 2, maxDelay: 10s, jitter: 0}}{resolve}}}
  - {{name: tell, kind: retriable, participant: mail, command: mail.send}}
"
    );
    definition("trip.yaml", &yaml)
}

fn asking_three_times() -> SagaDefinition {
    trip(", resolve: {attempts: 3}")
}

fn paying(definition: &SagaDefinition) -> SagaTest {
    given(definition)
        .input(json!({}))
        .expect(command("hotel.book"))
        .reply(success(Value::Null))
        .expect(command("bank.pay"))
}

/// Returns a saga that was cancelled while the pivot is in flight, after two resolves without an answer.
fn asked_twice(definition: &SagaDefinition) -> SagaTest {
    paying(definition)
        .cancel()
        .expect_pending()
        .expect(command("bank.pay.resolve").attempt(1))
        .time_out()
        .back_off()
        .expect(command("bank.pay.resolve").attempt(2))
        .reply(error("database", "gone away"))
        .back_off()
        .expect(command("bank.pay.resolve").attempt(3))
}

fn parked() -> SagaTest {
    asked_twice(&asking_three_times())
        .time_out()
        .expect_parked("pay", "pivot_unresolved")
}

fn goes_back(saga: SagaTest, because: &str) {
    saga.expect(command("hotel.cancel"))
        .reply(success(Value::Null))
        .expect_compensated_because(because);
}

fn goes_on(saga: SagaTest) {
    saga.expect(command("mail.send"))
        .reply(success(Value::Null))
        .expect_completed();
}

fn not_done_by_hand() -> ActionKind {
    ActionKind::NotDone {
        step: "pay".to_owned(),
    }
}

#[track_caller]
fn expect_warning(saga: SagaTest, words: &str) -> SagaTest {
    match saga.verdict() {
        Some(ActionVerdict::Accepted {
            warning: Some(warning),
        }) if warning.contains(words) => saga,
        other => panic!("expected a warning of '{words}', found {other:?}"),
    }
}

#[test]
fn an_unresolved_pivot_parks_and_decides_pending_actions() {
    parked()
        .expect_events(&["step_timed_out", "parked", "action_decided"])
        .expect_waiting(
            "person",
            "needs a person: the outcome of 'pay': bank was asked 3 times whether bank.pay was done, and did not say",
        )
        .expect_nothing_more()
        .expect_legal(&[
            "retry",
            "cancel",
            "compensate",
            "complete pay",
            "not_done pay",
            "skip tell",
            "abandon",
        ]);
}

#[test]
fn errors_use_up_the_askings_like_silence() {
    asked_twice(&asking_three_times())
        .reply(error("database", "gone away"))
        .expect_parked("pay", "pivot_unresolved")
        .expect_waiting("person", "last with database: gone away");
}

#[test]
fn a_late_answer_decides_an_unresolved_pivot() {
    goes_back(parked().reply(not_done()), "cancelled");
    goes_on(parked().reply(success(json!({"late": true}))));
    goes_back(parked().reply(failure("declined", "no money")), "declined");
    parked()
        .of("bank.pay.resolve")
        .reply_in_vain(error("database", "an old error"))
        .reply(success(Value::Null))
        .expect_events(&["step_succeeded", "unparked", "command_sent"]);
}

#[test]
fn a_person_completes_it_and_is_warned() {
    let saga = parked().complete("pay", json!({"by": "phone"}));
    let saga = expect_warning(
        saga,
        "bank never said whether 'pay' was done: if it was not",
    );
    let saga = saga
        .expect_events(&[
            "action_decided",
            "unparked",
            "step_completed",
            "command_sent",
        ])
        .of("bank.pay.resolve")
        .reply_in_vain(not_done());
    goes_on(saga);
}

#[test]
fn an_operators_not_done_is_accepted_with_a_warning() {
    let saga = parked().ask(not_done_by_hand());
    let saga = expect_warning(saga, "if it was done, or still will be, it stays done");
    let saga = saga
        .expect_events(&[
            "action_decided",
            "unparked",
            "step_not_done",
            "compensation_started",
            "command_sent",
        ])
        .of("bank.pay.resolve")
        .reply(success(json!({"charged": true})))
        .expect_events(&["late_reply"]);
    goes_back(saga, "cancelled");
}

#[test]
fn an_operator_can_repeat_the_resolve() {
    for kind in [ActionKind::retry(), ActionKind::Cancel] {
        let saga = parked()
            .ask(kind)
            .expect(command("bank.pay.resolve").attempt(4))
            .expect_waiting("resolve", "whether bank.pay was done")
            .complete("pay", Value::Null)
            .expect_refused("resolving")
            .ask(not_done_by_hand())
            .expect_refused("resolving")
            .reply(error("database", "gone away"))
            .back_off()
            .expect(command("bank.pay.resolve").attempt(5))
            .time_out()
            .back_off()
            .expect(command("bank.pay.resolve").attempt(6))
            .time_out()
            .expect_parked("pay", "pivot_unresolved");
        goes_back(saga.reply(not_done()), "cancelled");
    }
}

#[test]
fn without_a_number_it_is_asked_for_until_the_deadline_and_a_policy_long_behind_it() {
    let mut saga = paying(&trip(""))
        .cancel()
        .expect(command("bank.pay.resolve").attempt(1));
    for attempt in 2..=50 {
        saga = saga
            .time_out()
            .back_off()
            .expect(command("bank.pay.resolve").attempt(attempt));
    }
    saga.deadline()
        .expect_events(&["deadline_passed"])
        .time_out()
        .expect_parked("pay", "pivot_unresolved");
    paying(&trip(""))
        .deadline()
        .expect(command("bank.pay.resolve").attempt(1))
        .time_out()
        .back_off()
        .expect(command("bank.pay.resolve").attempt(2))
        .time_out()
        .expect_parked("pay", "pivot_unresolved");
}

#[test]
fn a_deadline_does_not_repeat_an_unanswered_resolve() {
    parked()
        .deadline()
        .expect_events(&["deadline_passed"])
        .expect_parked("pay", "pivot_unresolved")
        .expect_nothing_more();
}

#[test]
fn a_resolve_that_is_not_picked_up_can_be_decided_by_hand_after_the_deadline() {
    let queued = || {
        paying(&trip(""))
            .cancel()
            .expect(command("bank.pay.resolve"))
            .queued()
    };
    queued()
        .complete("pay", Value::Null)
        .expect_refused("resolving");
    let saga = queued().deadline().ask(not_done_by_hand());
    goes_back(expect_warning(saga, "it stays done"), "cancelled");
}

#[test]
fn a_resolve_is_not_answered_by_a_failure_or_a_success_of_its_own() {
    for answer in [failure("declined", "no money"), success(Value::Null)] {
        let broken = || {
            paying(&trip(""))
                .cancel()
                .expect(command("bank.pay.resolve"))
                .reply(answered_resolve(answer.clone()))
        };
        broken()
            .expect_events(&["step_failed", "parked", "action_decided"])
            .expect_parked("pay", "contract_broken")
            .expect_waiting(
                "person",
                "a resolve is answered by not_done, or by what the action answered",
            );
        goes_back(broken().reply(not_done()), "cancelled");
        goes_on(broken().complete("pay", Value::Null));
        broken()
            .retry()
            .expect(command("bank.pay.resolve").attempt(2));
    }
}

#[test]
fn a_compensation_that_is_answered_not_done_broke_its_contract() {
    paying(&trip(""))
        .reply(failure("declined", "no money"))
        .expect(command("hotel.cancel"))
        .reply(not_done())
        .expect_parked("book", "contract_broken")
        .retry()
        .expect(command("hotel.cancel").attempt(2))
        .reply(success(Value::Null))
        .expect_compensated_because("declined");
}

#[test]
fn an_unresolved_step_of_an_operators_action_parks_and_keeps_the_action() {
    let telling = || {
        let mut saga = paying(&trip(""))
            .reply(success(Value::Null))
            .expect(command("mail.send"))
            .deadline()
            .skip("tell")
            .expect_pending()
            .expect(command("mail.send.resolve").attempt(1));
        for attempt in 2..=5 {
            saga = saga
                .time_out()
                .back_off()
                .expect(command("mail.send.resolve").attempt(attempt));
        }
        saga.time_out()
            .expect_parked("tell", "step_unresolved")
            .expect_events(&["step_timed_out", "parked", "action_decided"])
            .expect_legal(&["retry", "complete tell", "skip tell", "abandon"])
    };
    telling()
        .reply(not_done())
        .expect_events(&["step_not_done", "unparked", "step_skipped", "completed"])
        .expect_completed();
    let saga = telling().complete("tell", json!({"by": "hand"}));
    expect_warning(saga, "if it was not done").expect_completed();
    let saga = telling().skip("tell");
    expect_warning(saga, "it stays done").expect_completed();
    telling()
        .ask(ActionKind::NotDone {
            step: "tell".to_owned(),
        })
        .expect_refused("not_pivot");
}

#[test]
fn only_an_unanswered_resolve_can_be_decided_as_not_done_by_hand() {
    paying(&trip(""))
        .ask(not_done_by_hand())
        .expect_refused("not_asked")
        .reply(success(Value::Null))
        .expect(command("mail.send"))
        .ask(not_done_by_hand())
        .expect_refused("already_done");
    given(&trip(""))
        .input(json!({}))
        .expect(command("hotel.book"))
        .ask(not_done_by_hand())
        .expect_refused("not_begun");
}
