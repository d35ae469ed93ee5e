//! Tests the stored form of an instance: every combination of its nested and flattened parts is read as it was written.

use super::*;
use serde_json::json;

fn fault() -> Fault {
    Fault::new("code", "message")
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(ms).unwrap()
}

fn deliveries() -> Vec<Delivery> {
    let in_flight = |pick_up| Delivery::InFlight {
        attempt: 2,
        sent_at: at(1),
        due_at: at(2),
        pick_up,
    };
    vec![
        in_flight(PickUp::Unseen),
        in_flight(PickUp::Queued { since: at(3) }),
        in_flight(PickUp::Seen { at: at(4) }),
        Delivery::BackingOff {
            attempt: 3,
            until: at(5),
            fault: fault(),
        },
        Delivery::UsedUp {
            attempt: 4,
            fault: fault(),
        },
    ]
}

fn states() -> Vec<StepState> {
    let mut states = vec![
        StepState::Waiting,
        StepState::Succeeded,
        StepState::Failed { fault: fault() },
        StepState::NotDone,
        StepState::Unknown,
        StepState::Compensated,
        StepState::CompensationSkipped {
            reason: "asked".to_owned(),
        },
        StepState::Skipped,
    ];
    for delivery in deliveries() {
        states.push(StepState::Running(delivery.clone()));
        states.push(StepState::Resolving(delivery.clone()));
        states.push(StepState::Compensating(delivery));
    }
    states
}

fn statuses() -> Vec<SagaStatus> {
    let parked = |phase| SagaStatus::Parked {
        step: "a".to_owned(),
        reason: fault(),
        phase,
    };
    vec![
        SagaStatus::Running,
        SagaStatus::Compensating,
        parked(Phase::Running),
        parked(Phase::Compensating),
        SagaStatus::Completed,
        SagaStatus::Compensated,
        SagaStatus::Abandoned {
            reason: "gone".to_owned(),
        },
    ]
}

fn kinds() -> Vec<LifecycleKind> {
    let part = || CommandRef {
        step: "a".to_owned(),
        direction: Direction::Compensation,
        attempt: 7,
    };
    let step = || "a".to_owned();
    let cause = || Cause::of_step("a", &fault());
    let mut kinds = vec![
        LifecycleKind::Started,
        LifecycleKind::Recovered,
        LifecycleKind::CommandSent {
            part: part(),
            command: "a.do".to_owned(),
            participant: "p".to_owned(),
        },
        LifecycleKind::CommandQueued { part: part() },
        LifecycleKind::CommandPickedUp { part: part() },
        LifecycleKind::StepSucceeded { part: part() },
        LifecycleKind::StepFailed {
            part: part(),
            fault: fault(),
        },
        LifecycleKind::StepErrored {
            part: part(),
            fault: fault(),
            retry_at: Some(at(6)),
        },
        LifecycleKind::StepTimedOut {
            part: part(),
            retry_at: Some(at(7)),
        },
        LifecycleKind::ResolveStarted {
            step: step(),
            cause: Cause::of_saga("deadline", "too long"),
        },
        LifecycleKind::StepNotDone { step: step() },
        LifecycleKind::CompensationStarted { cause: cause() },
        LifecycleKind::StepCompensated { step: step() },
        LifecycleKind::StepCompleted { step: step() },
        LifecycleKind::StepSkipped { step: step() },
        LifecycleKind::CompensationSkipped { step: step() },
        LifecycleKind::LateReply { part: part() },
        LifecycleKind::DeadlinePassed,
        LifecycleKind::Parked {
            step: step(),
            reason: fault(),
        },
        LifecycleKind::Unparked { step: step() },
        LifecycleKind::Completed,
        LifecycleKind::Compensated { cause: cause() },
        LifecycleKind::Abandoned {
            reason: "asked".to_owned(),
        },
    ];
    kinds.extend(verdicts().map(|verdict| LifecycleKind::ActionDecided {
        action_id: Uuid::from_u128(9),
        action: ActionName::Skip,
        step: Some("a".to_owned()),
        actor: "ann".to_owned(),
        reason: "asked".to_owned(),
        verdict,
    }));
    kinds
}

fn verdicts() -> [ActionVerdict; 4] {
    [
        ActionVerdict::ACCEPTED,
        ActionVerdict::Accepted {
            warning: Some("it may be done".to_owned()),
        },
        ActionVerdict::Pending,
        ActionVerdict::Refused {
            code: "c".to_owned(),
            message: "m".to_owned(),
            legal: vec!["skip a".to_owned()],
        },
    ]
}

fn asked() -> PendingAction {
    PendingAction {
        action_id: Uuid::from_u128(2),
        action: ActionName::Complete,
        actor: "ann".to_owned(),
        reason: "asked".to_owned(),
    }
}

fn instance(status: SagaStatus) -> SagaInstance {
    let steps = states().into_iter().enumerate().map(|(index, state)| {
        let mut step = StepInstance::new(state);
        step.result =
            (index % 2 == 0).then(|| json!({"n": index, "big": u64::MAX, "x": 0.5}).into());
        step.counted_from = 1 + index as u32 % 3;
        step.waiting_since = (index % 2 == 1).then(|| at(index as i64));
        step.unanswered = index % 3 == 0;
        step.corrected = (index % 4 == 0).then(|| Corrected {
            direction: Direction::Compensation,
            payload: json!({"state": null}),
        });
        step.settling = (index % 5 == 0).then(|| Settling {
            asked: (index % 10 == 0).then(asked),
            settlement: match index % 2 {
                0 => Settlement::Skipped,
                _ => Settlement::Completed {
                    result: json!({"result": null}),
                },
            },
        });
        step
    });
    let events = (1..).zip(kinds()).map(|(sequence, kind)| LifecycleEvent {
        sequence,
        at: at(sequence as i64),
        kind,
    });
    SagaInstance {
        id: SagaId(Uuid::from_u128(1)),
        definition: "d".to_owned(),
        definition_version: 3,
        definition_hash: DefinitionHash("h".to_owned()),
        business_key: Some("k".to_owned()),
        trace: Trace {
            correlation_id: "c".to_owned(),
            traceparent: Some("t".to_owned()),
        },
        home_partition: 2,
        started_at: at(0),
        deadline_at: at(100),
        overdue: true,
        recovered: true,
        changed_at: at(50),
        status,
        cause: Some(Cause::of_saga("cancelled", "asked")),
        resolve_cause: Some(Cause::of_step("a", &fault())),
        pending_reversals: vec![asked()],
        input: json!({"deep": [{"a": null}, -1, "text"], "step": "not the status's", "state": 1})
            .into(),
        steps: steps.collect(),
        sequence: 21,
        log: vec![
            LogEntry {
                position: Position {
                    partition: 2,
                    offset: 77,
                    at_ms: 0,
                },
                events: events.collect(),
            }
            .into(),
        ],
    }
}

#[test]
fn every_combination_survives_being_stored() {
    for status in statuses() {
        let saga = instance(status);
        let text = serde_json::to_string(&saga).unwrap();
        let read: SagaInstance = serde_json::from_str(&text).unwrap();
        assert_eq!(read, saga, "{text}");
        for again in [&saga, &read.clone(), &read] {
            assert_eq!(serde_json::to_string(again).unwrap(), text);
        }
        let value = serde_json::to_value(&saga).unwrap();
        assert_eq!(serde_json::from_value::<SagaInstance>(value).unwrap(), saga);
    }
}

#[test]
fn a_plain_step_is_stored_in_a_few_bytes() {
    let text = serde_json::to_string(&StepInstance::new(StepState::Succeeded)).unwrap();
    assert_eq!(text, r#"{"state":"succeeded"}"#);
}
