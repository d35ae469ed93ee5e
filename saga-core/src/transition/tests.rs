//! Tables of single decisions; whole stories stand in the testkit's sentences.

use super::*;
use crate::{
    ids::SagaId,
    instance::{Delivery, LogEntry, PickUp, Unchanging},
    message::{Direction, DuePart, Outcome, Reply, TimerKind, Trace, Verdict},
};
use serde_json::{Value, json};
use uuid::Uuid;

const YAML: &str = "
name: trip
version: 1
deadline: 1h
steps:
  - {name: order, kind: compensatable, participant: shop, compensation: {command: shop.cancel}}
  - {name: book, kind: compensatable, participant: hotel, command: hotel.book, timeout: 4s,
     compensation: {command: hotel.cancel}}
  - {name: pay, kind: pivot, participant: bank, command: bank.pay}
  - {name: tell, kind: retriable, participant: mail, command: mail.send}
";

fn definition() -> SagaDefinition {
    SagaDefinition::parse("trip.yaml", YAML).unwrap()
}

fn outbound() -> Outbound {
    Outbound {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(ms).unwrap()
}

fn position(offset: i64) -> Position {
    Position {
        partition: 3,
        offset,
    }
}

fn started() -> Transition {
    let start_saga = StartSaga {
        saga_id: SagaId(Uuid::from_u128(1)),
        start_type: "trip.asked".to_owned(),
        definition: "trip".to_owned(),
        business_key: None,
        input: json!({"guest": "ann"}),
        trace: Trace::default(),
    };
    start(
        &definition(),
        &start_saga,
        3,
        at(0),
        position(0),
        &outbound(),
    )
}

fn reply(step: &str, direction: Direction, attempt: u32, outcome: Outcome) -> EventBody {
    EventBody::CommandReplied(Reply {
        saga_id: SagaId(Uuid::from_u128(1)),
        step: step.to_owned(),
        direction,
        attempt,
        reply_type: "test".to_owned(),
        outcome,
        payload: Value::Null,
        trace: Trace::default(),
    })
}

fn timer(kind: TimerKind, part: Option<(&str, Direction, u32)>, verdict: Verdict) -> EventBody {
    EventBody::TimerFired(TimerDue {
        saga_id: SagaId(Uuid::from_u128(1)),
        kind,
        part: part.map(|(step, direction, attempt)| DuePart {
            step: step.to_owned(),
            direction,
            attempt,
        }),
        verdict,
        trace: Trace::default(),
    })
}

fn apply(saga: &SagaInstance, ms: i64, body: EventBody) -> Result<Transition, NotApplied> {
    let event = SagaEvent {
        at: at(ms),
        position: position(ms),
        body,
    };
    transition(&definition(), saga, &event, None, &outbound())
}

#[test]
fn a_start_sends_the_first_commands_and_skips_what_the_starter_did() {
    let first = started();
    assert_eq!(first.saga.steps[0].state, StepState::Succeeded);
    let [sent] = first.commands.as_slice() else {
        panic!("one command: {:?}", first.commands);
    };
    assert_eq!(sent.participant, "hotel");
    assert_eq!(sent.command.payload, json!({"guest": "ann"}));
    assert_eq!(sent.command.reply_to.partition, 3);
    assert!(sent.command.save_failure);
    assert_eq!(first.saga.deadline_at, at(3_600_000));
    assert_eq!(
        first.commands,
        commands_in_flight(&definition(), &first.saga, &outbound())
    );
}

#[test]
fn what_no_command_could_have_made_is_unknown_and_what_came_too_late_is_stale() {
    use Direction::{Compensation, Forward, Resolve};
    use NotApplied::{Stale, Unknown};
    use Outcome::{Error, Failure, NotDone, Success};
    let saga = started().saga;
    for (body, expected) in [
        (reply("nobody", Forward, 1, Success), Unknown),
        (reply("order", Forward, 1, Success), Unknown),
        (reply("pay", Forward, 1, Success), Unknown),
        (reply("pay", Forward, 1, Error), Unknown),
        (reply("pay", Compensation, 1, Success), Unknown),
        (reply("book", Compensation, 1, Success), Unknown),
        (reply("book", Resolve, 1, NotDone), Stale),
        (reply("order", Resolve, 1, NotDone), Unknown),
        (reply("book", Forward, 1, NotDone), Stale),
        (reply("book", Forward, 2, Error), Stale),
        (reply("pay", Resolve, 1, Success), Unknown),
        (reply("tell", Forward, 1, Failure), Unknown),
        (timer(TimerKind::Timeout, None, Verdict::PickedUp), Unknown),
        (
            timer(
                TimerKind::Deadline,
                Some(("book", Forward, 1)),
                Verdict::PickedUp,
            ),
            Unknown,
        ),
        (
            timer(
                TimerKind::Timeout,
                Some(("nobody", Forward, 1)),
                Verdict::PickedUp,
            ),
            Unknown,
        ),
        (
            timer(
                TimerKind::Timeout,
                Some(("book", Forward, 2)),
                Verdict::PickedUp,
            ),
            Stale,
        ),
        (
            timer(
                TimerKind::Timeout,
                Some(("book", Compensation, 1)),
                Verdict::PickedUp,
            ),
            Stale,
        ),
        (
            timer(
                TimerKind::Backoff,
                Some(("book", Forward, 1)),
                Verdict::Unknown,
            ),
            Stale,
        ),
        (
            timer(
                TimerKind::Timeout,
                Some(("order", Forward, 1)),
                Verdict::PickedUp,
            ),
            Stale,
        ),
    ] {
        assert_eq!(apply(&saga, 1, body.clone()), Err(expected), "{body:?}");
    }
}

#[test]
fn a_definition_of_another_shape_decides_nothing() {
    let mut saga = started().saga;
    saga.steps.pop();
    let body = reply("book", Direction::Forward, 1, Outcome::Success);
    assert_eq!(apply(&saga, 1, body), Err(NotApplied::Unknown));
}

#[test]
fn a_timeout_runs_from_when_the_pick_up_was_seen() {
    let saga = started().saga;
    let part = Some(("book", Direction::Forward, 1));
    let fired = |verdict| timer(TimerKind::Timeout, part, verdict);
    let flying = |saga: &SagaInstance| {
        let StepState::Running(Delivery::InFlight {
            attempt,
            due_at,
            pick_up,
            ..
        }) = &saga.steps[1].state
        else {
            panic!("not in flight: {:?}", saga.steps[1]);
        };
        (*attempt, *due_at, *pick_up)
    };
    assert_eq!(flying(&saga), (1, at(4_000), PickUp::Unseen));
    let queued = apply(&saga, 4_000, fired(Verdict::Unknown)).unwrap().saga;
    assert_eq!(
        flying(&queued),
        (1, at(4_000), PickUp::Queued { since: at(0) })
    );
    let armed = timers(&definition(), &queued);
    assert_eq!(armed[0].known, Some(Verdict::Queued));
    let seen = apply(&queued, 9_000, fired(Verdict::PickedUp))
        .unwrap()
        .saga;
    assert_eq!(
        flying(&seen),
        (1, at(13_000), PickUp::Seen { at: at(9_000) })
    );
    let armed = timers(&definition(), &seen);
    assert_eq!(
        (armed[0].participant.as_ref(), armed[0].known),
        (None, None)
    );
    for known in [Verdict::Queued, Verdict::Unknown, Verdict::Gone] {
        let late = apply(&seen, 13_000, fired(known));
        assert_eq!(late, Err(NotApplied::Stale), "{known:?}");
    }
    let again = apply(&seen, 13_000, fired(Verdict::Unanswered)).unwrap();
    assert_eq!(flying(&again.saga), (2, at(17_000), PickUp::Unseen));
    assert_eq!(again.commands.len(), 1);
}

/// An outage between the two may be as long as it likes.
#[test]
fn a_second_timer_that_saw_the_pick_up_does_not_end_the_attempt() {
    let part = Some(("book", Direction::Forward, 1));
    let picked_up = timer(TimerKind::Timeout, part, Verdict::PickedUp);
    let seen = apply(&started().saga, 4_000, picked_up.clone()).unwrap();
    let late = apply(&seen.saga, 3_600_000, picked_up);
    assert_eq!(late, Err(NotApplied::Stale));
    let early = timer(TimerKind::Timeout, part, Verdict::Unanswered);
    let early = apply(&started().saga, 4_000, early);
    assert_eq!(early, Err(NotApplied::Stale), "nobody has picked it up");
}

#[test]
fn an_input_that_stands_in_the_log_is_not_applied_again() {
    let part = Some(("book", Direction::Forward, 1));
    let gone = SagaEvent {
        at: at(4_000),
        position: Position {
            partition: 0,
            offset: 77,
        },
        body: timer(TimerKind::Timeout, part, Verdict::Gone),
    };
    let decide = |saga: &SagaInstance, event: &SagaEvent| {
        transition(&definition(), saga, event, None, &outbound())
    };
    let sent_again = decide(&started().saga, &gone).unwrap();
    assert_eq!(sent_again.commands.len(), 1);
    let redelivered = decide(&sent_again.saga, &gone);
    assert_eq!(redelivered, Err(NotApplied::Stale));
    let events = redelivery(&sent_again.saga, gone.position);
    assert_eq!(events, Some(sent_again.entry.events.as_slice()));
}

#[test]
fn a_backoff_is_the_policys_delay_with_the_same_jitter_everywhere() {
    let errored = |ms| {
        let body = reply("book", Direction::Forward, 1, Outcome::Error);
        apply(&started().saga, ms, body).unwrap()
    };
    let until = |applied: &Transition| {
        let StepState::Running(Delivery::BackingOff { until, .. }) = &applied.saga.steps[1].state
        else {
            panic!("not backing off: {:?}", applied.saga.steps[1]);
        };
        *until
    };
    let delay = until(&errored(1_000)) - at(1_000);
    assert!((400..=500).contains(&delay.num_milliseconds()), "{delay}");
    assert_eq!(until(&errored(2_000)) - at(2_000), delay);
    assert_eq!(
        timers(&definition(), &errored(1_000).saga)[0].kind,
        TimerKind::Backoff
    );
}

#[test]
fn a_wait_is_since_it_began_whatever_else_happens_meanwhile() {
    let body = reply("book", Direction::Forward, 1, Outcome::Error);
    let errored = apply(&started().saga, 1_000, body).unwrap().saga;
    let waiting = waiting_on(&definition(), &errored);
    assert_eq!(
        (waiting.kind.as_str(), waiting.since),
        ("backoff", at(1_000))
    );
    let mut later = errored;
    later.changed_at = at(9_000);
    assert_eq!(waiting_on(&definition(), &later).since, at(1_000));
}

#[test]
fn a_long_log_drops_committed_entries_from_its_middle() {
    let mut saga = started().saga;
    let entry = |partition, offset| {
        Unchanging::from(LogEntry {
            position: Position { partition, offset },
            events: Vec::new(),
        })
    };
    // Re-homed once: ten entries of another partition cannot be told committed.
    saga.log.extend((1..=10).map(|offset| entry(9, offset)));
    saga.log.extend((1..=300).map(|offset| entry(3, offset)));
    let body = reply("book", Direction::Forward, 1, Outcome::Success);
    let event = SagaEvent {
        at: at(1),
        position: position(301),
        body,
    };
    let length = |committed: Option<i64>| {
        let committed = committed.map(position);
        let applied = transition(&definition(), &saga, &event, committed, &outbound()).unwrap();
        let log = applied.saga.log;
        assert_eq!(log[0].position, position(0));
        assert_eq!(log[1].position.partition, 9);
        assert_eq!(log.last().unwrap().position, position(301));
        (log.len(), log[11].position.offset)
    };
    assert_eq!(length(None), (312, 1));
    assert_eq!(length(Some(20)), (292, 21));
    assert_eq!(length(Some(300)), (256, 57));
}

#[test]
fn an_action_after_the_end_is_refused_by_the_status_it_found() {
    let ActionVerdict::Refused {
        code,
        message,
        legal,
    } = verdict_after_end(&SagaStatus::Completed)
    else {
        panic!("refused");
    };
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("ended", "the saga has ended: completed")
    );
    assert!(legal.is_empty(), "{legal:?}");
}
