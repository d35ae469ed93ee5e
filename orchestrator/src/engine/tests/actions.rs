//! Operators' actions through the engine: their audit rows, including those of actions that are pending at first.

use super::*;
use crate::engine::saga_store::ActionRow;
use saga_core::{instance::ActionVerdict, message::Fault};

fn audited(bench: &Bench, action: u128) -> ActionRow {
    bench.store.tables().actions[&Uuid::from_u128(action)].clone()
}

/// Returns a saga whose pivot is in flight, and the pivot's command.
async fn charging(bench: &mut Bench) -> (SagaId, OutgoingRecord) {
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    let reserved = bench.reply(&reserve, Outcome::Success, json!({}));
    let charge = commands(&bench.process(&[reserved]).await).remove(0);
    (saga, charge)
}

fn complete(step: &str) -> ActionKind {
    ActionKind::Complete {
        step: step.to_owned(),
        result: json!({"by": "hand"}),
    }
}

#[tokio::test]
async fn the_audit_row_of_a_pending_action_shows_its_decision() {
    for (outcome, expected) in [
        (Outcome::NotDone, ActionVerdict::ACCEPTED),
        (
            Outcome::Success,
            ActionVerdict::Refused {
                code: "already_done".to_owned(),
                message: "'charge-payment' turned out to be done, and keeps its own result"
                    .to_owned(),
                legal: Vec::new(),
            },
        ),
    ] {
        let mut bench = Bench::new();
        let (saga, _) = charging(&mut bench).await;
        let asked = bench.action(saga, complete("charge-payment"), None);
        let action = bench.ids;
        let resolve = commands(&bench.process(&[asked]).await).remove(0);
        assert_eq!(text(&resolve, header::CE_TYPE), "payment.charge.resolve");
        assert_eq!(audited(&bench, action).verdict, ActionVerdict::Pending);
        let answer = match outcome {
            // If the step was done, a resolve is answered with the saved reply of the forward command.
            Outcome::Success => forward_reply(&resolve),
            Outcome::NotDone | Outcome::Failure | Outcome::Error => resolve,
        };
        let answered = bench.reply(&answer, outcome, json!({"by": "the service"}));
        let sent = commands(&bench.process(&[answered]).await);
        assert_eq!(sent.len(), 2, "it goes on");
        assert_eq!(audited(&bench, action).verdict, expected);
    }
}

fn forward_reply(resolve: &OutgoingRecord) -> OutgoingRecord {
    let mut forward = resolve.clone();
    forward.headers.remove(header::DIRECTION);
    forward.headers.push(header::DIRECTION, "forward");
    forward
}

#[tokio::test]
async fn an_action_and_its_deciding_reply_may_arrive_in_one_batch() {
    let mut bench = Bench::new();
    let (saga, charge) = charging(&mut bench).await;
    let asked = bench.action(saga, ActionKind::Cancel, None);
    let action = bench.ids;
    let declined = serde_json::to_value(Fault::new("payment_declined", "no")).unwrap();
    let failed = bench.reply(&charge, Outcome::Failure, declined);
    bench.process(&[asked, failed]).await;
    let row = audited(&bench, action);
    assert_eq!(row.verdict, ActionVerdict::ACCEPTED);
    assert_eq!(row.status_after, Some("compensating"));
}

/// A reply that is mistaken for a redelivery does no lasting harm, because the command in flight is sent again. An
/// action is sent only once.
#[tokio::test]
async fn an_action_of_a_recreated_topic_is_decided_at_any_offset() {
    let mut bench = Bench::new();
    let (saga, _) = charging(&mut bench).await;
    bench.next_offset = 0;
    let asked = bench.action(saga, ActionKind::Cancel, None);
    let action = bench.ids;
    let resolve = commands(&bench.process(&[asked]).await).remove(0);
    assert_eq!(text(&resolve, header::CE_TYPE), "payment.charge.resolve");
    assert_eq!(audited(&bench, action).verdict, ActionVerdict::Pending);
}

#[tokio::test]
async fn an_abandoned_saga_is_in_history_and_a_redelivered_start_sends_no_command() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    bench.process(std::slice::from_ref(&start)).await;
    let abandon = bench.action(saga, ActionKind::Abandon, None);
    let told = bench.process(std::slice::from_ref(&abandon)).await;
    let events = types(&told, "saga.events");
    assert_eq!(events, ["saga.action_decided", "saga.abandoned"]);
    assert_eq!(bench.store.ended(saga).status.as_str(), "abandoned");
    assert_eq!(bench.shared.timers().len(), 0);
    for again in [start, abandon] {
        let outputs = bench.process(&[again]).await;
        assert!(!of_topic(&outputs, "saga.events").is_empty());
        assert_eq!(commands(&outputs), []);
    }
}

#[tokio::test]
async fn a_refusal_names_the_legal_actions_at_the_current_version() {
    let mut bench = Bench::new();
    let (saga, _) = charging(&mut bench).await;
    for (kind, if_version, expected) in [
        (ActionKind::Cancel, Some(1), "version_changed"),
        (ActionKind::retry(), None, "not_parked"),
    ] {
        let asked = bench.action(saga, kind, if_version);
        let action = bench.ids;
        bench.process(&[asked]).await;
        match audited(&bench, action).verdict {
            ActionVerdict::Refused { code, legal, .. } => {
                assert_eq!(code, expected);
                assert!(legal.contains(&"complete charge-payment".to_owned()));
                assert!(legal.contains(&"cancel".to_owned()));
            }
            other @ (ActionVerdict::Accepted { .. } | ActionVerdict::Pending) => {
                panic!("{other:?}")
            }
        }
    }
}

#[tokio::test]
async fn an_operators_values_are_checked_like_any_other_input() {
    let mut bench = Bench::new();
    let (saga, _) = charging(&mut bench).await;
    let nul = ActionKind::Complete {
        step: "charge-payment".to_owned(),
        result: json!({"text": "a\0b"}),
    };
    let long = complete(&"x".repeat(1_000));
    for (kind, expected) in [
        (nul, "nul_character"),
        (complete("a\0b"), "nul_character"),
        (long, "bad_payload"),
    ] {
        let asked = bench.action(saga, kind, None);
        assert_eq!(reason(&bench.process(&[asked]).await), expected);
    }
}

#[tokio::test]
async fn a_corrected_input_that_no_broker_takes_parks_the_saga_again() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let mut input = order();
    let item = input["items"][0].clone();
    input["items"] = Value::Array(vec![item; MESSAGE_LIMIT_BYTES / 80]);
    let start = bench.start_with(saga, "place-order", input.clone());
    bench.process(&[start]).await;
    let corrected = |input: &Value| ActionKind::Retry {
        step: Some("reserve-stock".to_owned()),
        input: Some(input.clone()),
    };
    let too_large = bench.action(saga, corrected(&input), None);
    assert_eq!(commands(&bench.process(&[too_large]).await), []);
    assert_eq!(bench.store.live(saga).status.as_str(), "parked");
    let small = bench.action(saga, corrected(&json!({"items": []})), None);
    let sent = commands(&bench.process(&[small]).await);
    assert_eq!(sent[0].payload, b"{\"items\":[]}");
    assert_eq!(bench.store.live(saga).status.as_str(), "running");
}
