use super::*;
use crate::engine::decode::MAX_DEPTH;
use chrono::TimeDelta;
use saga_core::{instance::ActionVerdict, message::Fault};

fn fault(code: &str) -> Value {
    serde_json::to_value(Fault::new(code, "no")).unwrap()
}

#[tokio::test]
async fn a_start_and_its_replies_lead_to_the_end_and_into_history() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let first = bench.process(&[start]).await;
    assert_eq!(
        types(&first, "saga.events"),
        ["saga.started", "saga.command_sent"]
    );
    let sent = bench.run_to_end(first).await;
    assert_eq!(sent[..2], ["inventory.reserve", "payment.charge"]);
    assert_eq!(sent.len(), 4);
    assert_eq!(bench.store.ended(saga).status.as_str(), "completed");
    assert!(bench.store.tables().live.is_empty());
    assert_eq!(
        bench.shared.timers().len(),
        0,
        "an ended saga has no timers"
    );
}

/// The clock is told between two looks, and may be told late; one that was set back is believed.
#[tokio::test]
async fn a_sagas_instants_run_backwards_only_with_the_clock_itself() {
    for (back_ms, follows) in [(1_000, false), (1_001, true)] {
        let mut bench = Bench::new();
        let saga = bench.saga_id();
        let start = bench.start(saga);
        let reserve = commands(&bench.process(&[start]).await).remove(0);
        let began = bench.store.live(saga).changed_at;
        bench.store.tables().now -= TimeDelta::milliseconds(back_ms);
        let reserved = bench.reply(&reserve, Outcome::Success, json!({}));
        bench.process(&[reserved]).await;
        let told = bench.store.now();
        let expected = if follows { told } else { began };
        assert_eq!(bench.store.live(saga).changed_at, expected);
    }
}

#[tokio::test]
async fn a_failed_pivot_compensates_and_ends_in_history() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    let reserved = bench.reply(&reserve, Outcome::Success, json!({}));
    let charge = commands(&bench.process(&[reserved]).await).remove(0);
    let declined = bench.reply(&charge, Outcome::Failure, fault("payment_declined"));
    let back = bench.process(&[declined]).await;
    let sent = bench.run_to_end(back).await;
    assert_eq!(sent, ["inventory.release", "order.cancel"]);
    let ended = bench.store.ended(saga);
    assert_eq!(ended.status.as_str(), "compensated");
    assert_eq!(ended.cause.unwrap().code, "payment_declined");
}

#[tokio::test]
async fn any_batching_of_the_same_inputs_gives_the_same_state() {
    let mut one_by_one = Bench::new();
    let mut at_once = Bench::new();
    let saga = one_by_one.saga_id();
    let start = one_by_one.start(saga);
    let reserve = commands(&one_by_one.process(std::slice::from_ref(&start)).await).remove(0);
    let reserved = one_by_one.reply(&reserve, Outcome::Success, json!({}));
    let charge = commands(&one_by_one.process(std::slice::from_ref(&reserved)).await).remove(0);
    let declined = one_by_one.reply(&charge, Outcome::Failure, fault("payment_declined"));
    one_by_one.process(std::slice::from_ref(&declined)).await;
    let outputs = at_once.process(&[start, reserved, declined]).await;
    assert_eq!(one_by_one.store.live(saga), at_once.store.live(saga));
    assert_eq!(
        types(&outputs, ".commands"),
        ["inventory.reserve", "payment.charge", "inventory.release"]
    );
}

#[tokio::test]
async fn a_redelivered_input_yields_its_events_and_the_commands_in_flight_again() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let first = bench.process(std::slice::from_ref(&start)).await;
    let before = bench.store.live(saga);
    let again = bench.process(&[start]).await;
    assert_eq!(ids(&first, ".commands"), ids(&again, ".commands"));
    assert_eq!(ids(&first, "saga.events"), ids(&again, "saga.events"));
    let payloads = |records: &[OutgoingRecord]| -> Vec<Vec<u8>> {
        of_topic(records, ".commands")
            .into_iter()
            .map(|record| record.payload.clone())
            .collect()
    };
    assert_eq!(payloads(&first), payloads(&again));
    assert_eq!(bench.store.live(saga), before, "nothing is written");
}

#[tokio::test]
async fn redeliveries_of_one_batch_send_the_commands_in_flight_once() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let reserve = commands(&bench.process(std::slice::from_ref(&start)).await).remove(0);
    let reserved = bench.reply(&reserve, Outcome::Success, json!({}));
    bench.process(std::slice::from_ref(&reserved)).await;
    let again = bench.process(&[start, reserved]).await;
    assert_eq!(types(&again, ".commands"), ["payment.charge"]);
    assert_eq!(
        types(&again, "saga.events"),
        [
            "saga.started",
            "saga.command_sent",
            "saga.step_succeeded",
            "saga.command_sent"
        ]
    );
}

#[tokio::test]
async fn a_duplicate_at_another_place_yields_nothing() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    let reserved = bench.reply(&reserve, Outcome::Success, json!({}));
    bench.process(&[reserved]).await;
    let start_again = bench.start(saga);
    let reply_again = bench.reply(&reserve, Outcome::Success, json!({}));
    assert_eq!(bench.process(&[start_again, reply_again]).await, []);
}

#[tokio::test]
async fn the_last_input_of_an_ended_saga_yields_the_terminal_event_again() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let first = bench.process(std::slice::from_ref(&start)).await;
    bench.run_to_end(first).await;
    let last = bench.store.ended(saga).log.last().unwrap().position.offset;
    let commands_sent = bench.store.ended(saga);
    let mut redelivered = start.clone();
    redelivered.offset = last;
    // A start at the place of the last reply: only the place counts for what is sent again.
    let again = bench.process(&[redelivered]).await;
    assert!(types(&again, "saga.events").contains(&"saga.completed".to_owned()));
    assert_eq!(commands(&again), []);
    assert_eq!(bench.store.ended(saga), commands_sent);
}

#[tokio::test]
async fn the_same_id_with_other_content_is_a_conflict_and_changes_nothing() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    bench.process(&[start]).await;
    let other = bench.start_with(saga, "place-order", json!({"other": true}));
    assert_eq!(reason(&bench.process(&[other]).await), "id_conflict");
    assert_eq!(*bench.store.live(saga).input, order());
}

#[tokio::test]
async fn a_start_of_an_unknown_definition_is_dead_lettered_and_its_batch_goes_on() {
    let mut bench = Bench::new();
    let (bad, good) = (bench.saga_id(), bench.saga_id());
    let records = [
        bench.start_with(bad, "no-such-thing", json!({})),
        bench.start(good),
    ];
    let outputs = bench.process(&records).await;
    assert_eq!(reason(&outputs), "unknown_definition");
    assert_eq!(types(&outputs, ".commands"), ["inventory.reserve"]);
}

#[tokio::test]
async fn ids_ahead_of_their_record_are_dead_lettered() {
    for (offset, valid) in [
        (TimeDelta::days(-29), true),
        (TimeDelta::minutes(4), true),
        (TimeDelta::minutes(6), false),
    ] {
        let mut bench = Bench::new();
        let start = bench.start(id_at(epoch() + offset, 1));
        let outputs = bench.process(&[start]).await;
        if valid {
            assert_eq!(commands(&outputs).len(), 1, "{offset}");
        } else {
            assert_eq!(reason(&outputs), "id_out_of_window", "{offset}");
        }
    }
    let mut bench = Bench::new();
    let start = bench.start(SagaId(Uuid::from_u128(4 << 76)));
    assert_eq!(reason(&bench.process(&[start]).await), "id_out_of_window");
}

/// An outage of Kafka keeps it in the outbox of whoever accepted it; accepted is accepted.
#[tokio::test]
async fn a_start_that_reaches_the_log_days_after_it_was_accepted_runs_once() {
    let mut bench = Bench::new();
    bench.shared.raise_floor(epoch() - TimeDelta::days(30));
    let saga = id_at(epoch() - TimeDelta::days(5), 1);
    let (start, again) = (bench.start(saga), bench.start(saga));
    let outputs = bench.process(&[start]).await;
    assert_eq!(types(&outputs, ".commands"), ["inventory.reserve"]);
    assert_eq!(bench.process(&[again]).await, []);
}

#[tokio::test]
async fn ids_below_the_floor_are_dead_lettered_and_commands_carry_the_floor() {
    let mut bench = Bench::new();
    bench.shared.raise_floor(epoch() - TimeDelta::hours(1));
    let old = bench.start(id_at(epoch() - TimeDelta::hours(2), 1));
    assert_eq!(reason(&bench.process(&[old]).await), "below_floor");
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let command = commands(&bench.process(&[start]).await).remove(0);
    let floor = (epoch() - TimeDelta::hours(1))
        .timestamp_millis()
        .to_string();
    assert_eq!(text(&command, header::FLOOR), floor);
}

#[tokio::test]
async fn unreadable_records_are_dead_lettered_with_their_reason() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let mut cut = bench.start(saga);
    cut.payload = Some(b"{".to_vec());
    let nul = bench.start_with(saga, "place-order", json!({"text": "a\0b"}));
    let deep = bench.start_with(saga, "place-order", json!({"deep": nested(MAX_DEPTH)}));
    let refused = [
        (cut, "bad_payload"),
        (nul, "nul_character"),
        (deep, "too_deep"),
    ];
    for (record, expected) in refused {
        assert_eq!(reason(&bench.process(&[record]).await), expected);
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

/// A row that could be written and not be read would stop its partition for ever.
#[tokio::test]
async fn the_deepest_input_and_result_can_be_read_from_their_row_again() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let mut input = order();
    input["deep"] = nested(MAX_DEPTH - 1);
    let start = bench.start_with(saga, "place-order", input);
    let command = commands(&bench.process(&[start]).await).remove(0);
    let reply = bench.reply(&command, Outcome::Success, nested(MAX_DEPTH));
    bench.process(&[reply]).await;
    let row = serde_json::to_string(&bench.store.live(saga)).unwrap();
    let read: saga_core::instance::SagaInstance = serde_json::from_str(&row).unwrap();
    assert_eq!(read, bench.store.live(saga));
}

/// History has no partition for them, and a saga that cannot end would stop its partition.
#[tokio::test]
async fn ids_far_ahead_of_the_database_are_dead_lettered_whatever_their_records_say() {
    let mut bench = Bench::new();
    let ahead = epoch() + TimeDelta::days(2);
    let mut start = bench.start(id_at(ahead, 1));
    start.timestamp_ms = ahead.timestamp_millis();
    assert_eq!(reason(&bench.process(&[start]).await), "id_out_of_window");
}

#[tokio::test]
async fn a_reply_to_an_unknown_saga_is_ignored() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let command = commands(&bench.process(&[start]).await).remove(0);
    let mut elsewhere = Bench::new();
    let reply = elsewhere.reply(&command, Outcome::Success, json!({}));
    assert_eq!(elsewhere.process(&[reply]).await, []);
}

#[tokio::test]
async fn an_action_is_decided_once_and_audited_with_before_and_after() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    bench.process(&[start]).await;
    let cancel = bench.action(saga, ActionKind::Cancel, None);
    let mut elsewhere = cancel.clone();
    elsewhere.offset += 10;
    let first = bench.process(std::slice::from_ref(&cancel)).await;
    assert_eq!(direction(&commands(&first)[0]), Direction::Compensation);
    {
        let tables = bench.store.tables();
        let row = tables.actions.values().next().unwrap();
        assert_eq!(row.verdict, ActionVerdict::Accepted);
        assert_eq!(
            (row.status_before, row.status_after),
            (Some("running"), Some("compensating"))
        );
    }
    assert_eq!(
        bench.process(&[elsewhere]).await,
        [],
        "a duplicate breeds nothing"
    );
    let again = bench.process(&[cancel]).await;
    assert_eq!(
        ids(&first, "saga.events"),
        ids(&again, "saga.events"),
        "a redelivery is told again"
    );
}

#[tokio::test]
async fn actions_on_ended_unknown_or_moved_sagas_are_refused_with_an_audit_row() {
    let mut bench = Bench::new();
    let (ended, running, unknown) = (bench.saga_id(), bench.saga_id(), bench.saga_id());
    let starts = [bench.start(ended), bench.start(running)];
    let mut first = commands(&bench.process(&starts).await);
    first.retain(|command| text(command, header::SAGA_ID) == ended.to_string());
    bench.run_to_end(first).await;
    for (saga, if_version, expected) in [
        (ended, None, "ended"),
        (unknown, None, "unknown_saga"),
        (running, Some(99), "version_changed"),
    ] {
        let action = bench.action(saga, ActionKind::Cancel, if_version);
        assert_eq!(bench.process(&[action]).await, []);
        let tables = bench.store.tables();
        let row = tables.actions.values().last().unwrap();
        match &row.verdict {
            ActionVerdict::Refused { code, .. } => assert_eq!(code, expected),
            other @ (ActionVerdict::Accepted | ActionVerdict::Pending) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_that_no_broker_takes_parks_its_saga_and_sends_nothing() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let mut input = order();
    let item = input["items"][0].clone();
    input["items"] = Value::Array(vec![item; MESSAGE_LIMIT_BYTES / 80]);
    let start = bench.start_with(saga, "place-order", input);
    let outputs = bench.process(std::slice::from_ref(&start)).await;
    assert_eq!(commands(&outputs), []);
    assert_eq!(
        types(&outputs, "saga.events"),
        ["saga.started", "saga.parked"]
    );
    let parked = bench.store.live(saga);
    assert_eq!(parked.status.as_str(), "parked");
    assert_eq!(parked.sequence, 2);
    let again = bench.process(&[start]).await;
    assert_eq!(ids(&again, "saga.events"), ids(&outputs, "saga.events"));
    let retry = bench.action(saga, ActionKind::retry(), None);
    assert_eq!(commands(&bench.process(&[retry]).await), []);
    assert_eq!(bench.store.live(saga).status.as_str(), "parked");
}

#[tokio::test]
async fn sequences_have_no_gap() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let first = bench.process(&[start]).await;
    bench.run_to_end(first).await;
    let ended = bench.store.ended(saga);
    let sequences: Vec<u64> = ended
        .log
        .iter()
        .flat_map(|entry| &entry.events)
        .map(|event| event.sequence)
        .collect();
    assert_eq!(sequences, (1..=ended.sequence).collect::<Vec<u64>>());
}
