use super::*;
use crate::{engine::decode::MAX_DEPTH, registry::Withdrawn};
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

/// The clock is extrapolated between two readings, and may run late. A clock that was really set back is accepted.
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

/// Another orchestrator had charged the order, and its state is lost.
#[tokio::test]
async fn a_repeated_start_with_a_cancel_resolves_the_payment_of_an_unknown_saga() {
    for (outcome, expected, end) in [
        (
            Outcome::NotDone,
            vec!["inventory.release", "order.cancel"],
            "compensated",
        ),
        (
            Outcome::Success,
            vec!["inventory.reserve", "inventory.complete", "order.confirm"],
            "completed",
        ),
    ] {
        let mut bench = Bench::new();
        let saga = bench.saga_id();
        let mut start = bench.start(saga);
        start.headers.push(header::START, StartSaga::AGAIN);
        let cancel = bench.action(saga, ActionKind::Cancel, None);
        let asked = bench.process(&[start, cancel]).await;
        assert_eq!(types(&asked, ".commands"), ["payment.charge.resolve"]);
        let mut resolve = commands(&asked).remove(0);
        if outcome == Outcome::Success {
            // If the pivot was done, its resolve is answered with the reply of the forward command.
            resolve.headers.remove(header::DIRECTION);
            resolve.headers.push(header::DIRECTION, "forward");
        }
        let answer = bench.reply(&resolve, outcome, json!({}));
        let next = bench.process(&[answer]).await;
        assert_eq!(bench.run_to_end(next).await, expected);
        let ended = bench.store.ended(saga);
        assert_eq!(ended.status.as_str(), end);
        let cause = ended.cause.map(|cause| (cause.code, cause.message));
        let cancelled = ("cancelled".to_owned(), "because".to_owned());
        assert_eq!(cause, (end == "compensated").then_some(cancelled));
    }
}

/// The first start of the order may only have been late.
#[tokio::test]
async fn a_repeated_start_does_not_change_a_known_saga() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let mut again = bench.start(saga);
    again.headers.push(header::START, StartSaga::AGAIN);
    let outputs = bench.process(&[start, again]).await;
    assert_eq!(types(&outputs, ".commands"), ["inventory.reserve"]);
    assert!(!bench.store.live(saga).recovered);
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

/// A recreated topic assigns its offsets a second time.
#[tokio::test]
async fn an_input_at_a_reused_offset_is_applied_and_its_redelivery_is_recognized() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    let place = start.offset;
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    bench.next_offset = place;
    bench.store.tables().now += TimeDelta::milliseconds(1);
    let reserved = bench.reply(&reserve, Outcome::Success, json!({}));
    assert_eq!(reserved.offset, place);
    let applied = bench.process(std::slice::from_ref(&reserved)).await;
    assert_eq!(types(&applied, ".commands"), ["payment.charge"]);
    let again = bench.process(&[reserved]).await;
    assert_eq!(ids(&again, ".commands"), ids(&applied, ".commands"));
    assert_eq!(ids(&again, "saga.events"), ids(&applied, "saga.events"));
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
    // This start has the position of the last reply: only the position decides which events are sent again.
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
async fn a_start_of_an_unknown_definition_is_dead_lettered_and_its_batch_continues() {
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
async fn definitions_are_read_when_their_generation_has_changed_and_not_otherwise() {
    let mut bench = Bench::new();
    let starts: Vec<SagaId> = (0..3).map(|_| bench.saga_id()).collect();
    for saga in &starts {
        let start = bench.start(*saga);
        bench.process(&[start]).await;
    }
    assert_eq!(bench.store.tables().catalogs_read, 1);
    // Another process has registered a definition, whose first start must not be dead-lettered.
    let late = bench.saga_id();
    let start = bench.start_with(late, "brand-new", order());
    let brand_new = SagaDefinition {
        name: "brand-new".to_owned(),
        ..shipped().next().unwrap()
    };
    bench.store.tables().catalog = Catalog::of(2, shipped().chain([brand_new]));
    assert_eq!(commands(&bench.process(&[start]).await).len(), 1);
    assert_eq!(bench.store.tables().catalogs_read, 2);
}

#[tokio::test]
async fn a_version_that_only_a_later_release_can_read_waits_for_a_process_of_that_release() {
    let mut bench = Bench::new();
    let saga = bench.saga_id();
    let start = bench.start(saga);
    bench.store.tables().catalog.definitions[0].definition = Err("unknown field".to_owned());
    let error = bench.engine.process(&[start]).await.unwrap_err();
    assert!(matches!(error, BatchError::Retry(_)), "{error:?}");
}

#[tokio::test]
async fn a_withdrawn_definition_starts_no_new_saga_but_recovers_a_lost_one() {
    let mut bench = Bench::new();
    let (new, lost) = (bench.saga_id(), bench.saga_id());
    for one in &mut bench.store.tables().catalog.definitions {
        one.withdrawn = Some(Withdrawn {
            at: epoch(),
            actor: "eve".to_owned(),
            reason: "it charges twice".to_owned(),
        });
    }
    let start = bench.start(new);
    assert_eq!(
        reason(&bench.process(&[start]).await),
        "definition_withdrawn"
    );
    let mut again = bench.start(lost);
    again.headers.push(header::START, StartSaga::AGAIN);
    assert_eq!(commands(&bench.process(&[again]).await).len(), 1);
    assert!(bench.store.live(lost).recovered);
}

#[tokio::test]
async fn a_business_key_is_free_once_its_saga_has_ended() {
    let mut bench = Bench::new();
    let (first, second) = (bench.saga_id(), bench.saga_id());
    let key = |bench: &mut Bench, saga| {
        let start = StartSaga {
            saga_id: saga,
            start_type: "order.created".to_owned(),
            definition: "place-order".to_owned(),
            business_key: Some("the same".to_owned()),
            input: order(),
            trace: trace(),
        };
        bench.append(start.encode(INPUTS, 0, "/order-svc", epoch()))
    };
    let start = key(&mut bench, first);
    let reserve = commands(&bench.process(&[start]).await).remove(0);
    let second_start = key(&mut bench, second);
    let outputs = bench.process(std::slice::from_ref(&second_start)).await;
    assert_eq!(reason(&outputs), "business_key_taken");
    let failed = bench.reply(&reserve, Outcome::Failure, fault("out_of_stock"));
    let cancel = commands(&bench.process(&[failed]).await).remove(0);
    let cancelled = bench.reply(&cancel, Outcome::Success, json!({}));
    let again = key(&mut bench, second);
    // The first saga's row must be deleted before the second saga can start, so the batch is split.
    let together = [cancelled.clone(), again.clone()];
    let error = bench.engine.process(&together).await.unwrap_err();
    assert!(matches!(error, BatchError::Data(_)), "{error:?}");
    bench.process(&[cancelled]).await;
    assert_eq!(commands(&bench.process(&[again]).await).len(), 1);
}

/// A clock that is hours ahead makes ids that are ahead, too. Their records may have any time.
#[tokio::test]
async fn ids_more_than_a_day_ahead_of_the_database_are_dead_lettered() {
    for (offset, valid) in [
        (TimeDelta::days(-29), true),
        (TimeDelta::minutes(6), true),
        (TimeDelta::hours(23), true),
        (TimeDelta::hours(25), false),
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

/// During an outage of Kafka, an accepted start stays in its starter's outbox. It must not be rejected because of that.
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

#[tokio::test]
async fn a_start_that_is_no_object_or_does_not_fit_its_schema_is_dead_lettered() {
    let mut bench = Bench::new();
    let mut quantity = order();
    quantity["items"][0]["quantity"] = json!("one");
    for (input, detail) in [
        (
            Value::from(order().to_string()),
            "an object was expected, and this is a string",
        ),
        (json!([]), "an object was expected, and this is a list"),
        (json!(42), "an object was expected, and this is a number"),
        (Value::Null, "an object was expected, and this is null"),
        (json!({}), "\"orderId\" is a required property"),
        (
            quantity,
            "the input does not fit its schema at /items/0/quantity: ",
        ),
    ] {
        let saga = bench.saga_id();
        let start = bench.start_with(saga, "place-order", input);
        let letters = bench.process(&[start]).await;
        assert_eq!(reason(&letters), "bad_payload");
        let found = text(&letters[0], header::DEAD_LETTER_DETAIL);
        assert!(found.contains(detail), "{found}");
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

/// A row that could be written but not read again would block its partition forever.
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

/// History has no partition for such ids, and a saga that cannot end would block its partition.
#[tokio::test]
async fn ids_far_ahead_of_the_database_are_dead_lettered_despite_their_records_times() {
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
        assert_eq!(row.verdict, ActionVerdict::ACCEPTED);
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
            other @ (ActionVerdict::Accepted { .. } | ActionVerdict::Pending) => {
                panic!("{other:?}")
            }
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
