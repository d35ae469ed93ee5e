//! Tests single decisions in tables. The test kit's sentences test whole sagas.

use super::*;
use crate::{
    ids::SagaId,
    instance::{Delivery, LogEntry, Phase, PickUp, SharedJson},
    message::{
        ActionKind, CommandRef, Direction, Fault, OperatorAction, Outcome, PayloadLimit,
        PickUpStatus, Reply, TimerDue, TimerKind, Trace,
    },
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

fn command_context() -> CommandContext {
    CommandContext {
        reply_topic: "saga.inputs".to_owned(),
        floor: None,
        payload_limit: PayloadLimit::NONE,
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(ms).unwrap()
}

fn position(offset: i64) -> Position {
    Position {
        partition: 3,
        offset,
        at_ms: 0,
    }
}

fn asked() -> StartSaga {
    StartSaga {
        saga_id: SagaId(Uuid::from_u128(1)),
        start_type: "trip.asked".to_owned(),
        definition: "trip".to_owned(),
        business_key: None,
        input: json!({"guest": "ann"}),
        trace: Trace::default(),
    }
}

fn started() -> Transition {
    start(
        &definition(),
        &asked(),
        3,
        at(0),
        position(0),
        &command_context(),
    )
}

fn recovered() -> Transition {
    recover(
        &definition(),
        &asked(),
        3,
        at(1_000),
        position(0),
        &command_context(),
    )
}

/// Returns the types of the commands that are sent.
fn sent(made: &Transition) -> Vec<&str> {
    made.commands
        .iter()
        .map(|sent| sent.command.command_type.as_str())
        .collect()
}

fn names(made: &Transition) -> Vec<&str> {
    let events = made.entry.events.iter();
    events.map(|event| event.kind.name()).collect()
}

fn reply(step: &str, direction: Direction, attempt: u32, outcome: Outcome) -> Input {
    Input::Reply(Reply {
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

type Part<'a> = (&'a str, Direction, u32);

fn timer(kind: TimerKind, part: Option<Part<'_>>, verdict: PickUpStatus) -> Input {
    timer_with(kind, part, verdict, None)
}

/// Returns a timer of a command that was seen consumed at this instant.
fn unanswered(part: Part<'_>, picked_up_ms: i64) -> Input {
    let picked_up_at = Some(at(picked_up_ms));
    timer_with(
        TimerKind::Timeout,
        Some(part),
        PickUpStatus::Unanswered,
        picked_up_at,
    )
}

fn timer_with(
    kind: TimerKind,
    part: Option<Part<'_>>,
    verdict: PickUpStatus,
    picked_up_at: Option<Timestamp>,
) -> Input {
    Input::Timer(TimerDue {
        saga_id: SagaId(Uuid::from_u128(1)),
        kind,
        part: part.map(|(step, direction, attempt)| CommandRef {
            step: step.to_owned(),
            direction,
            attempt,
        }),
        verdict,
        picked_up_at,
        trace: Trace::default(),
    })
}

fn action(kind: ActionKind) -> Input {
    Input::Operator(OperatorAction {
        saga_id: SagaId(Uuid::from_u128(1)),
        action_id: Uuid::from_u128(2),
        kind,
        actor: "ann".to_owned(),
        reason: "asked".to_owned(),
        if_version: None,
        trace: Trace::default(),
    })
}

fn apply(saga: &SagaInstance, ms: i64, input: Input) -> Result<Transition, NotApplied> {
    let event = SagaEvent {
        at: at(ms),
        position: position(ms),
        input,
    };
    transition(&definition(), saga, &event, None, &command_context())
}

#[test]
fn a_start_sends_the_first_commands_and_skips_the_starters_steps() {
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
        commands_in_flight(&definition(), &first.saga, &command_context())
    );
}

#[test]
fn replies_without_a_possible_command_are_unknown_and_late_replies_are_stale() {
    use Direction::{Compensation, Forward, Resolve};
    use NotApplied::{Stale, Unknown};
    use Outcome::{Error, Failure, NotDone, Success};
    use PickUpStatus::PickedUp;
    use TimerKind::{Backoff, Deadline, Timeout};
    let saga = started().saga;
    for (input, expected) in [
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
        (timer(Timeout, None, PickedUp), Unknown),
        (
            timer(Deadline, Some(("book", Forward, 1)), PickedUp),
            Unknown,
        ),
        (
            timer(Timeout, Some(("nobody", Forward, 1)), PickedUp),
            Unknown,
        ),
        (timer(Timeout, Some(("book", Forward, 2)), PickedUp), Stale),
        (
            timer(Timeout, Some(("book", Compensation, 1)), PickedUp),
            Stale,
        ),
        (
            timer(Backoff, Some(("book", Forward, 1)), PickUpStatus::Unknown),
            Stale,
        ),
        (timer(Timeout, Some(("order", Forward, 1)), PickedUp), Stale),
    ] {
        assert_eq!(apply(&saga, 1, input.clone()), Err(expected), "{input:?}");
    }
}

#[test]
fn a_definition_of_another_shape_decides_nothing() {
    let mut saga = started().saga;
    saga.steps.pop();
    let input = reply("book", Direction::Forward, 1, Outcome::Success);
    assert_eq!(apply(&saga, 1, input), Err(NotApplied::Unknown));
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
    let queued = apply(&saga, 4_000, fired(PickUpStatus::Unknown))
        .unwrap()
        .saga;
    assert_eq!(
        flying(&queued),
        (1, at(4_000), PickUp::Queued { since: at(0) })
    );
    let armed = timers(&definition(), &queued);
    assert_eq!(armed[0].known, Some(PickUpStatus::Queued));
    let seen = apply(&queued, 9_000, fired(PickUpStatus::PickedUp))
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
    for known in [
        PickUpStatus::Queued,
        PickUpStatus::Unknown,
        PickUpStatus::Gone,
    ] {
        let late = apply(&seen, 13_000, fired(known));
        assert_eq!(late, Err(NotApplied::Stale), "{known:?}");
    }
    let timed_out = apply(&seen, 13_000, fired(PickUpStatus::Unanswered))
        .unwrap()
        .saga;
    let over = timer(TimerKind::Backoff, part, PickUpStatus::Unanswered);
    let again = apply(&timed_out, 13_500, over).unwrap();
    assert_eq!(flying(&again.saga), (2, at(17_500), PickUp::Unseen));
    assert_eq!(again.commands.len(), 1);
}

#[test]
fn a_pick_up_that_was_seen_before_the_timer_came_due_counts_from_when_it_was_seen() {
    let part = ("book", Direction::Forward, 1);
    let saga = started().saga;
    let (kind, verdict) = (TimerKind::Timeout, PickUpStatus::PickedUp);
    let seen = timer_with(kind, Some(part), verdict, Some(at(1_500)));
    let applied = apply(&saga, 4_010, seen).unwrap();
    assert_eq!(timers(&definition(), &applied.saga)[0].due_at, at(5_500));
    let ended = apply(&saga, 4_210, unanswered(part, 200)).unwrap();
    let names: Vec<&str> = ended
        .entry
        .events
        .iter()
        .map(|event| event.kind.name())
        .collect();
    assert_eq!(names, ["command_picked_up", "step_timed_out"]);
    let again = apply(&ended.saga, 4_220, unanswered(part, 200));
    assert_eq!(
        again,
        Err(NotApplied::Stale),
        "a second one of the same attempt"
    );
}

/// Returns when each attempt of a command is sent if no reply comes and timers fire exactly.
fn sends(
    definition: &SagaDefinition,
    mut saga: SagaInstance,
    step: &str,
    count: usize,
) -> Vec<i64> {
    let decide = |saga: &SagaInstance, at: Timestamp, input| {
        let event = SagaEvent {
            at,
            position: position(at.timestamp_millis() + 1_000_000),
            input,
        };
        transition(definition, saga, &event, None, &command_context())
            .unwrap()
            .saga
    };
    let mut sent = Vec::new();
    while sent.len() < count {
        let (index, _) = definition.step(step).unwrap();
        let (direction, delivery) = saga.steps[index].state.delivery().unwrap();
        let part = (step, direction, delivery.attempt());
        match delivery.clone() {
            Delivery::InFlight {
                sent_at, due_at, ..
            } => {
                sent.push((sent_at - started().saga.started_at).num_seconds());
                saga = decide(&saga, due_at, unanswered(part, sent_at.timestamp_millis()));
            }
            Delivery::BackingOff { until, .. } => {
                let over = timer(TimerKind::Backoff, Some(part), PickUpStatus::Unanswered);
                saga = decide(&saga, until, over);
            }
            Delivery::UsedUp { .. } => panic!("used up after {sent:?}"),
        }
    }
    sent
}

const PATIENT: &str = "
name: patient
version: 1
deadline: 1h
steps:
  - {name: book, kind: compensatable, participant: hotel, command: hotel.book, timeout: 2s,
     retry: {attempts: 5, firstDelay: 4s, factor: 2, jitter: 0},
     compensation: {command: hotel.cancel, timeout: 2s, retry: {attempts: 5, firstDelay: 4s, factor: 2, jitter: 0}}}
  - {name: pay, kind: pivot, participant: bank, command: bank.pay, timeout: 2s,
     retry: {attempts: 5, firstDelay: 4s, factor: 2, jitter: 0}}
  - {name: tell, kind: retriable, participant: mail, command: mail.send, timeout: 2s,
     retry: {attempts: 5, firstDelay: 4s, factor: 2, jitter: 0}}
";

#[test]
fn after_a_timeout_the_next_attempt_waits_as_after_an_error() {
    let definition = SagaDefinition::parse("patient.yaml", PATIENT).unwrap();
    let start_saga = StartSaga {
        saga_id: SagaId(Uuid::from_u128(1)),
        start_type: "trip.asked".to_owned(),
        definition: "patient".to_owned(),
        business_key: None,
        input: json!({}),
        trace: Trace::default(),
    };
    let first = start(
        &definition,
        &start_saga,
        3,
        at(0),
        position(0),
        &command_context(),
    )
    .saga;
    let mut places = 1..;
    let mut next = |saga: &SagaInstance, input: Input| {
        let event = SagaEvent {
            at: at(0),
            position: position(places.next().unwrap()),
            input,
        };
        transition(&definition, saga, &event, None, &command_context())
            .unwrap()
            .saga
    };
    let mut answered = |saga: &SagaInstance, step, outcome| {
        next(saga, reply(step, Direction::Forward, 1, outcome))
    };
    let paying = answered(&first, "book", Outcome::Success);
    let telling = answered(&paying, "pay", Outcome::Success);
    let undoing = answered(&paying, "pay", Outcome::Failure);
    let deadline = timer(TimerKind::Deadline, None, PickUpStatus::Unknown);
    let asking = next(&paying, deadline);
    for (saga, step) in [
        (first, "book"),
        (paying, "pay"),
        (telling, "tell"),
        (undoing, "book"),
        (asking, "pay"),
    ] {
        assert_eq!(
            sends(&definition, saga, step, 5),
            [0, 6, 16, 34, 66],
            "{step}"
        );
    }
}

/// A late answer counts in the pause after a timeout just as while the attempt is in flight.
#[test]
fn a_late_answer_counts_in_the_pause_behind_a_timeout_and_an_old_error_does_not() {
    let part = ("book", Direction::Forward, 1);
    let pausing = apply(&started().saga, 4_000, unanswered(part, 0))
        .unwrap()
        .saga;
    let answered = |outcome| {
        apply(
            &pausing,
            4_100,
            reply("book", Direction::Forward, 1, outcome),
        )
        .map(|applied| applied.saga.steps[1].state.clone())
    };
    assert_eq!(answered(Outcome::Success), Ok(StepState::Succeeded));
    assert!(matches!(
        answered(Outcome::Failure),
        Ok(StepState::Failed { .. })
    ));
    assert_eq!(answered(Outcome::Error), Err(NotApplied::Stale));
}

#[test]
fn a_timeout_that_is_seen_late_shortens_no_pause_by_more_than_a_second() {
    let part = ("book", Direction::Forward, 1);
    let until = |ms| {
        let saga = apply(&started().saga, ms, unanswered(part, 0))
            .unwrap()
            .saga;
        match saga.steps[1].state.delivery() {
            Some((_, Delivery::BackingOff { until, .. })) => *until,
            other => panic!("not backing off: {other:?}"),
        }
    };
    let delay = until(4_000) - at(4_000);
    assert_eq!(until(4_900) - delay, at(4_000), "from when it was due");
    assert_eq!(until(60_000) - delay, at(60_000), "from when it was seen");
}

/// This holds however long the outage between the two timers is.
#[test]
fn a_second_timer_that_saw_the_pick_up_does_not_end_the_attempt() {
    let part = Some(("book", Direction::Forward, 1));
    let picked_up = timer(TimerKind::Timeout, part, PickUpStatus::PickedUp);
    let seen = apply(&started().saga, 4_000, picked_up.clone()).unwrap();
    let late = apply(&seen.saga, 3_600_000, picked_up);
    assert_eq!(late, Err(NotApplied::Stale));
    let early = timer(TimerKind::Timeout, part, PickUpStatus::Unanswered);
    let early = apply(&started().saga, 4_000, early);
    assert_eq!(early, Err(NotApplied::Stale), "nobody has picked it up");
}

#[test]
fn an_input_in_the_saga_log_is_not_applied_again() {
    let part = Some(("book", Direction::Forward, 1));
    let gone = SagaEvent {
        at: at(4_000),
        position: Position {
            partition: 0,
            offset: 77,
            at_ms: 0,
        },
        input: timer(TimerKind::Timeout, part, PickUpStatus::Gone),
    };
    let decide = |saga: &SagaInstance, event: &SagaEvent| {
        transition(&definition(), saga, event, None, &command_context())
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
        let input = reply("book", Direction::Forward, 1, Outcome::Error);
        apply(&started().saga, ms, input).unwrap()
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
fn a_wait_keeps_its_beginning_across_other_events() {
    let input = reply("book", Direction::Forward, 1, Outcome::Error);
    let errored = apply(&started().saga, 1_000, input).unwrap().saga;
    let waiting = waiting_on(&definition(), &errored);
    assert_eq!((waiting.kind.as_str(), waiting.since), ("backoff", at(0)));
    let over = timer(
        TimerKind::Backoff,
        Some(("book", Direction::Forward, 1)),
        PickUpStatus::Unanswered,
    );
    let again = apply(&errored, 1_600, over).unwrap().saga;
    let waiting = waiting_on(&definition(), &again);
    assert_eq!(
        (waiting.kind.as_str(), waiting.attempt, waiting.since),
        ("reply", Some(2), at(0)),
        "not since the newest attempt"
    );
    let queued = timer(
        TimerKind::Timeout,
        Some(("book", Direction::Forward, 2)),
        PickUpStatus::Queued,
    );
    let queued = apply(&again, 6_000, queued).unwrap().saga;
    let waiting = waiting_on(&definition(), &queued);
    assert_eq!((waiting.kind.as_str(), waiting.since), ("queued", at(0)));
    let booked = reply("book", Direction::Forward, 1, Outcome::Success);
    let paying = apply(&queued, 7_000, booked).unwrap().saga;
    assert_eq!(waiting_on(&definition(), &paying).since, at(7_000));
    let asking = apply(&paying, 9_000, action(ActionKind::Cancel))
        .unwrap()
        .saga;
    let error = reply("pay", Direction::Resolve, 1, Outcome::Error);
    let asking = apply(&asking, 60_000, error).unwrap().saga;
    let waiting = waiting_on(&definition(), &asking);
    assert_eq!(
        (waiting.kind.as_str(), waiting.since),
        ("resolve", at(9_000))
    );
}

#[test]
fn a_long_log_drops_committed_entries_from_its_middle() {
    let mut saga = started().saga;
    let entry = |partition, offset| {
        SharedJson::from(LogEntry {
            position: Position {
                partition,
                offset,
                at_ms: 0,
            },
            events: Vec::new(),
        })
    };
    // The saga was re-homed once: ten entries are of another partition, where `committed` says nothing about them.
    saga.log.extend((1..=10).map(|offset| entry(9, offset)));
    saga.log.extend((1..=300).map(|offset| entry(3, offset)));
    let input = reply("book", Direction::Forward, 1, Outcome::Success);
    let event = SagaEvent {
        at: at(1),
        position: position(301),
        input,
    };
    let length = |committed: Option<i64>| {
        let committed = committed.map(position);
        let applied =
            transition(&definition(), &saga, &event, committed, &command_context()).unwrap();
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

#[test]
fn a_saga_that_was_forgotten_begins_with_the_question_whether_its_pivot_is_done() {
    let first = recovered();
    assert_eq!(sent(&first), ["bank.pay.resolve"]);
    let numbers: Vec<u64> = first
        .entry
        .events
        .iter()
        .map(|told| told.sequence)
        .collect();
    assert_eq!(
        numbers,
        [1_001, 1_002, 1_003],
        "far above those it may have used"
    );
    // A reply to a command from before the loss decides nothing.
    let late = reply("book", Direction::Forward, 1, Outcome::Success);
    assert_eq!(apply(&first.saga, 1_001, late), Err(NotApplied::Unknown));
}

#[test]
fn a_forgotten_saga_without_its_pivot_compensates_every_step_that_may_have_run() {
    for (direction, outcome) in [
        (Direction::Resolve, Outcome::NotDone),
        (Direction::Forward, Outcome::Failure),
    ] {
        let answer = reply("pay", direction, 1, outcome);
        let back = apply(&recovered().saga, 1_001, answer).unwrap();
        assert_eq!(sent(&back), ["hotel.cancel"], "{outcome:?}");
        let undone = reply("book", Direction::Compensation, 1, Outcome::Success);
        let next = apply(&back.saga, 1_002, undone).unwrap();
        assert_eq!(sent(&next), ["shop.cancel"]);
        let undone = reply("order", Direction::Compensation, 1, Outcome::Success);
        let end = apply(&next.saga, 1_003, undone).unwrap();
        assert_eq!(end.saga.status, SagaStatus::Compensated);
    }
}

/// The earlier steps are sent once more, for their results: the barrier answers those that were done. If the barrier
/// does not know one of them any more, nothing may be compensated, because the money is taken.
#[test]
fn a_forgotten_saga_past_its_pivot_continues_forward_and_never_compensates() {
    let done = reply("pay", Direction::Forward, 1, Outcome::Success);
    let forward = apply(&recovered().saga, 1_001, done).unwrap();
    assert_eq!(sent(&forward), ["hotel.book"]);
    let booked = reply("book", Direction::Forward, 1, Outcome::Success);
    let next = apply(&forward.saga, 1_002, booked).unwrap();
    assert_eq!(sent(&next), ["mail.send"]);
    let refused = reply("book", Direction::Forward, 1, Outcome::Failure);
    let parked = apply(&forward.saga, 1_002, refused).unwrap();
    assert_eq!(sent(&parked), [""; 0]);
    let SagaStatus::Parked { step, phase, .. } = &parked.saga.status else {
        panic!("{:?}", parked.saga.status);
    };
    assert_eq!(
        (step.as_str(), *phase),
        ("book", crate::instance::Phase::Running)
    );
}

/// The participant's saved failure says that the step was never done. Therefore an operator's skip, which asks first,
/// applies.
#[test]
fn a_step_that_failed_behind_a_done_pivot_can_be_skipped() {
    let done = reply("pay", Direction::Forward, 1, Outcome::Success);
    let forward = apply(&recovered().saga, 1_001, done).unwrap();
    let refused = reply("book", Direction::Forward, 1, Outcome::Failure);
    let parked = apply(&forward.saga, 1_002, refused.clone()).unwrap();
    let skip = ActionKind::Skip {
        step: "book".to_owned(),
        compensation: false,
    };
    let asking = apply(&parked.saga, 1_003, action(skip)).unwrap();
    assert_eq!(sent(&asking), ["hotel.book.resolve"]);
    let skipped = apply(&asking.saga, 1_004, refused).unwrap();
    assert_eq!(skipped.saga.steps[1].state, StepState::Skipped);
    assert_eq!(sent(&skipped), ["mail.send"]);
}

/// The step was skipped by hand, or compensated, before the state was lost. A retry would be in vain, and it would be
/// wrong to report that the participant does not answer.
#[test]
fn a_step_that_is_refused_behind_a_done_pivot_parks_and_can_be_skipped() {
    let done = reply("pay", Direction::Forward, 1, Outcome::Success);
    let forward = apply(&recovered().saga, 1_001, done).unwrap();
    let refused = reply("book", Direction::Forward, 1, Outcome::NotDone);
    let parked = apply(&forward.saga, 1_002, refused).unwrap();
    assert_eq!(sent(&parked), [""; 0]);
    let SagaStatus::Parked { reason, .. } = &parked.saga.status else {
        panic!("{:?}", parked.saga.status);
    };
    assert_eq!(reason.code, "not_done");
    let skip = ActionKind::Skip {
        step: "book".to_owned(),
        compensation: false,
    };
    let asking = apply(&parked.saga, 1_003, action(skip)).unwrap();
    let refused = reply("book", Direction::Resolve, 1, Outcome::NotDone);
    let skipped = apply(&asking.saga, 1_004, refused).unwrap();
    assert_eq!(sent(&skipped), ["mail.send"]);
}

#[test]
fn a_forgotten_saga_without_a_pivot_is_compensated_at_once() {
    let yaml = "
name: walk
version: 1
deadline: 1h
steps:
  - {name: a, kind: compensatable, participant: p, command: p.a, compensation: {command: p.una}}
  - {name: b, kind: compensatable, participant: p, command: p.b, compensation: {command: p.unb}}
";
    let definition = SagaDefinition::parse("walk.yaml", yaml).unwrap();
    let first = recover(
        &definition,
        &asked(),
        3,
        at(0),
        position(0),
        &command_context(),
    );
    assert_eq!(sent(&first), ["p.unb"]);
    assert_eq!(first.saga.cause.unwrap().code, "cancelled");
}

/// Skipping a step that may have run would leave its effect for ever.
#[test]
fn no_step_of_a_forgotten_saga_is_skipped_before_its_outcome_is_known() {
    let legal = legal_actions(&definition(), &recovered().saga);
    let legal: Vec<String> = legal.iter().map(ToString::to_string).collect();
    assert_eq!(legal, ["cancel", "compensate", "abandon"]);
}

/// A command that is larger than the broker accepts is not sent, and parks its saga in the direction that it has. The
/// limit is a little below the size of the payload of `hotel.book` and above that of an operator's correction.
#[test]
fn a_command_that_is_too_large_parks_its_saga_instead_of_being_sent() {
    let narrow = CommandContext {
        payload_limit: PayloadLimit::of_bytes(14),
        ..command_context()
    };
    let asked = asked();
    assert_eq!(asked.input.to_string().len(), 15);
    let parked = start(&definition(), &asked, 3, at(0), position(0), &narrow);
    assert_eq!(sent(&parked), [""; 0]);
    assert_eq!(names(&parked), ["started", "parked"]);
    let fault = Fault::new(
        "payload_too_large",
        "the payload of hotel.book has 15 bytes, more than the broker takes",
    );
    assert_eq!(
        parked.saga.status,
        SagaStatus::Parked {
            step: "book".to_owned(),
            reason: fault.clone(),
            phase: Phase::Running,
        }
    );
    let used_up = Delivery::UsedUp { attempt: 1, fault };
    assert_eq!(parked.saga.steps[1].state, StepState::Running(used_up));
    assert!(commands_in_flight(&definition(), &parked.saga, &narrow).is_empty());
    let next = |saga: &SagaInstance, kind| {
        let event = SagaEvent {
            at: at(1),
            position: position(1),
            input: action(kind),
        };
        transition(&definition(), saga, &event, None, &narrow).unwrap()
    };
    let again = next(&parked.saga, ActionKind::retry());
    assert_eq!(sent(&again), [""; 0]);
    assert_eq!(names(&again), ["action_decided", "unparked", "parked"]);
    let corrected = ActionKind::Retry {
        step: Some("book".to_owned()),
        input: Some(json!({"guest": 1})),
    };
    assert_eq!(sent(&next(&parked.saga, corrected)), ["hotel.book"]);
    // What is compensated is too large as well, for the starter's step.
    let back = next(&parked.saga, ActionKind::Cancel);
    assert_eq!(back.saga.status.phase(), Phase::Compensating);
    assert!(matches!(
        back.saga.steps[1].state,
        StepState::Compensating(Delivery::UsedUp { .. })
    ));
}

#[test]
fn a_resolve_that_is_too_large_is_sent_without_its_payload() {
    let narrow = CommandContext {
        payload_limit: PayloadLimit::of_bytes(14),
        ..command_context()
    };
    let made = recover(&definition(), &asked(), 3, at(0), position(0), &narrow);
    assert_eq!(sent(&made), ["bank.pay.resolve"]);
    assert_eq!(made.commands[0].command.payload, Value::Null);
    assert_eq!(
        commands_in_flight(&definition(), &made.saga, &narrow),
        made.commands
    );
    let record = made.commands[0].clone().encode("topic", "source", at(0));
    assert_eq!(record.payload, b"null");
}
