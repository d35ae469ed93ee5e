//! Sweeps over every shipped definition: each single failure is tried alone. Afterwards, the state must be clean: every
//! effect is there, or every effect is compensated.
//!
//! The decisions and the barrier are the real ones, and two queues replace everything else. So thousands of sagas take
//! only a moment. Each test also states how the saga must end: a saga that compensates without a reason would leave a
//! clean state, too.

mod participants;
mod run;
mod script;

use orchestrator::registry::SHIPPED;
use run::{Run, attempts, run};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    instance::{ActionVerdict, SagaStatus},
    message::{ActionKind, Direction, Outcome},
};
use saga_testkit::definition;
use script::{Mishap, Script};
use serde_json::{Value, json};

fn order() -> Value {
    json!({
        "orderId": "o-1", "customerId": "c-1", "amountMinor": 2500, "currency": "EUR",
        "items": [{"productId": "p-1", "quantity": 2, "unitPriceMinor": 1250}],
    })
}

fn shipped() -> [SagaDefinition; 2] {
    SHIPPED.map(|(file, yaml)| definition(file, yaml))
}

/// Returns the steps that have a command.
fn actions(definition: &SagaDefinition) -> impl Iterator<Item = &Step> {
    let steps = definition.steps.iter();
    steps.filter(|step| step.action.is_some())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Completed,
    Compensated,
    Abandoned,
}

#[track_caller]
fn check(run: &Run<'_>, end: End, parked: usize) {
    let found = match run.saga.status {
        SagaStatus::Completed => End::Completed,
        SagaStatus::Compensated => End::Compensated,
        SagaStatus::Abandoned { .. } => End::Abandoned,
        SagaStatus::Running | SagaStatus::Compensating | SagaStatus::Parked { .. } => {
            panic!("it has not ended: {:?}", run.saga.status)
        }
    };
    assert_eq!((found, run.parked), (end, parked), "{:?}", run.saga);
}

/// Returns the runs to disturb, with their ends: the first has no failure, and in each other run one step fails.
fn bases(definition: &SagaDefinition) -> Vec<(Script, End)> {
    let failing = actions(definition).map(|step| {
        let script = Script::answering(&step.name, Direction::Forward, Outcome::Failure, 1);
        (script, end_of_failure(step.kind))
    });
    [(Script::default(), End::Completed)]
        .into_iter()
        .chain(failing)
        .collect()
}

/// Returns the end after a failure: a saga compensates, unless the failure is after its pivot. Then a person handles
/// the failure, and the saga completes.
fn end_of_failure(kind: StepKind) -> End {
    match kind {
        StepKind::Compensatable | StepKind::Pivot => End::Compensated,
        StepKind::Retriable => End::Completed,
    }
}

#[test]
fn each_step_failing_compensates_or_waits_for_a_person() {
    for definition in &shipped() {
        for step in actions(definition) {
            let script = Script::answering(&step.name, Direction::Forward, Outcome::Failure, 1);
            let run = run(definition, script);
            let parks = usize::from(step.kind == StepKind::Retriable);
            check(&run, end_of_failure(step.kind), parks);
            let cause = run.saga.cause.as_ref().and_then(|cause| cause.step.clone());
            assert_eq!(cause.is_some(), parks == 0);
            assert!(cause.is_none_or(|cause| cause == step.name));
        }
    }
}

#[test]
fn each_step_erring_is_tried_again_and_gives_up_only_when_its_attempts_are_spent() {
    for definition in &shipped() {
        for step in actions(definition) {
            let most = attempts(definition, &step.name, Direction::Forward);
            for times in 1..=most {
                let script =
                    Script::answering(&step.name, Direction::Forward, Outcome::Error, times);
                let run = run(definition, script);
                if times < most {
                    check(&run, End::Completed, 0);
                } else {
                    let parks = usize::from(step.kind == StepKind::Retriable);
                    check(&run, end_of_failure(step.kind), parks);
                }
            }
        }
    }
}

#[test]
fn each_step_without_an_answer_is_tried_again_and_then_compensated_resolved_or_parked() {
    for definition in &shipped() {
        for step in actions(definition) {
            let most = attempts(definition, &step.name, Direction::Forward);
            for times in 1..=most {
                for is_done in [false, true] {
                    let script = Script::silent(&step.name, Direction::Forward, times, is_done);
                    let run = run(definition, script);
                    let spent = times == most;
                    let (end, parks) = match step.kind {
                        StepKind::Compensatable if spent => (End::Compensated, 0),
                        // The outcome is asked for: if the step was done, its stored reply says so.
                        StepKind::Pivot if spent && !is_done => (End::Compensated, 0),
                        StepKind::Retriable if spent => (End::Completed, 1),
                        StepKind::Compensatable | StepKind::Pivot | StepKind::Retriable => {
                            (End::Completed, 0)
                        }
                    };
                    check(&run, end, parks);
                }
            }
        }
    }
}

#[test]
fn each_message_duplicated_dropped_or_late_changes_no_end() {
    let mut runs = 0;
    for definition in &shipped() {
        for (script, end) in bases(definition) {
            let undisturbed = run(definition, script.clone());
            for message in 0..undisturbed.messages {
                for mishap in Mishap::ALL {
                    let disturbed = run(definition, script.with_mishap(message, mishap));
                    // A failure that parks is not stored, so a duplicate of its command may succeed before a person
                    // acts.
                    assert!(disturbed.parked <= undisturbed.parked);
                    check(&disturbed, end, disturbed.parked);
                    assert_eq!(disturbed.has_turned_round(), undisturbed.has_turned_round());
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 100, "only {runs} runs");
}

#[test]
fn each_compensation_that_succeeds_after_errors_takes_effect_once() {
    for definition in &shipped() {
        let failing = actions(definition).filter(|step| step.kind != StepKind::Retriable);
        for failed in failing {
            let base = Script::answering(&failed.name, Direction::Forward, Outcome::Failure, 1);
            for step in &definition.steps {
                let most = attempts(definition, &step.name, Direction::Compensation);
                for times in 1..=most {
                    let script = base.clone().and_answering(
                        &step.name,
                        Direction::Compensation,
                        Outcome::Error,
                        times,
                    );
                    let run = run(definition, script);
                    // A compensation is sent only if its step was done.
                    let runs = run.participants.ledger(&step.name).done > 0;
                    check(&run, End::Compensated, usize::from(runs && times == most));
                }
                if most > 0 {
                    let script = base.clone().and_answering(
                        &step.name,
                        Direction::Compensation,
                        Outcome::Failure,
                        2,
                    );
                    let run = run(definition, script);
                    let runs = run.participants.ledger(&step.name).done > 0;
                    check(&run, End::Compensated, if runs { 2 } else { 0 });
                }
            }
        }
    }
}

#[test]
fn each_compensation_without_an_answer_is_made_once() {
    for definition in &shipped() {
        let pivot = &definition.steps[definition.pivot().expect("it has one")].name;
        let base = Script::answering(pivot, Direction::Forward, Outcome::Failure, 1);
        for step in &definition.steps {
            let most = attempts(definition, &step.name, Direction::Compensation);
            for times in 1..=most {
                for is_done in [false, true] {
                    let silent =
                        Script::silent(&step.name, Direction::Compensation, times, is_done);
                    let script = Script {
                        silence: silent.silence,
                        ..base.clone()
                    };
                    let run = run(definition, script);
                    check(&run, End::Compensated, usize::from(times == most));
                }
            }
        }
    }
}

/// Returns every action in every form.
fn requested_actions(definition: &SagaDefinition) -> Vec<ActionKind> {
    let on_step = |step: &Step| {
        let step = step.name.clone();
        [
            ActionKind::Retry {
                step: Some(step.clone()),
                input: Some(json!({"corrected": true})),
            },
            ActionKind::Complete {
                step: step.clone(),
                result: json!({"by": "hand"}),
            },
            ActionKind::NotDone { step: step.clone() },
            ActionKind::Skip {
                step: step.clone(),
                compensation: false,
            },
            ActionKind::Skip {
                step,
                compensation: true,
            },
        ]
    };
    [
        ActionKind::Cancel,
        ActionKind::Compensate,
        ActionKind::retry(),
        ActionKind::Abandon,
    ]
    .into_iter()
    .chain(definition.steps.iter().flat_map(on_step))
    .collect()
}

#[test]
fn each_action_at_each_moment_leaves_a_clean_slate_and_a_refused_one_no_trace() {
    let (mut accepted, mut refused) = (0, 0);
    for definition in &shipped() {
        for (script, end) in bases(definition) {
            let undisturbed = run(definition, script.clone());
            for moment in 1..=undisturbed.inputs {
                for requested in requested_actions(definition) {
                    let run = run(definition, script.with_action(moment, requested.clone()));
                    let may_leave = matches!(
                        requested,
                        ActionKind::Abandon
                            | ActionKind::Skip {
                                compensation: true,
                                ..
                            }
                    );
                    match &run.verdict {
                        Some(ActionVerdict::Refused { legal, .. }) => {
                            refused += 1;
                            assert!(!legal.is_empty(), "a live saga can always be abandoned");
                            check(&run, end, undisturbed.parked);
                        }
                        // The saga had ended before the action was due.
                        None => check(&run, end, undisturbed.parked),
                        Some(ActionVerdict::Accepted { .. } | ActionVerdict::Pending) => {
                            accepted += 1;
                            let is_left = matches!(run.saga.status, SagaStatus::Abandoned { .. });
                            assert!(may_leave || !is_left, "{requested:?} has left the saga");
                        }
                    }
                }
            }
        }
    }
    assert!(
        accepted > 100 && refused > 100,
        "{accepted} accepted, {refused} refused"
    );
}
