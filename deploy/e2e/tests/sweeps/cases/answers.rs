//! Cases in which steps and compensations answer with failures or errors, some times or until their attempts are used
//! up.

use super::{actions, attempts, end_of_failure};
use crate::script::{Case, End, Script};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    message::{Direction, Outcome},
};
use std::sync::Arc;

pub fn cases(definition: &Arc<SagaDefinition>) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in actions(definition) {
        cases.push(failing(definition, step));
        let most = attempts(step, Direction::Forward);
        cases.extend((1..=most).map(|times| erring(definition, step, times)));
        if step.kind != StepKind::Retriable {
            for compensated in &definition.steps {
                cases.extend(compensation(definition, step, compensated));
            }
        }
    }
    cases
}

pub fn failing(definition: &Arc<SagaDefinition>, step: &Step) -> Case {
    // A business failure does not depend on the attempt. A retriable step that fails violates its contract, and may
    // succeed the next time.
    let times = match step.kind {
        StepKind::Compensatable | StepKind::Pivot => u32::MAX,
        StepKind::Retriable => 1,
    };
    let script = Script::answering(&step.name, Direction::Forward, Outcome::Failure, times);
    let (end, parked) = end_of_failure(step.kind);
    let name = format!("{} fails", step.name);
    Case::new(definition, &name, script, end).parked(parked)
}

/// The step answers with an error `times` times. It is retried, and fails only when its attempts are used up.
fn erring(definition: &Arc<SagaDefinition>, step: &Step, times: u32) -> Case {
    let script = Script::answering(&step.name, Direction::Forward, Outcome::Error, times);
    let name = format!("{} errs {times} times", step.name);
    let (end, parked) = if times < attempts(step, Direction::Forward) {
        (End::Completed, 0)
    } else {
        end_of_failure(step.kind)
    };
    Case::new(definition, &name, script, end).parked(parked)
}

/// The step `failed` makes the saga start compensating, and a compensation goes wrong some times before it succeeds.
fn compensation(definition: &Arc<SagaDefinition>, failed: &Step, step: &Step) -> Vec<Case> {
    let most = attempts(step, Direction::Compensation);
    // The compensation is sent only if its step was done.
    let (at, failed_at) = (place(definition, step), place(definition, failed));
    let is_made = definition.steps[failed_at].ancestors.contains(&at);
    let case = |outcome: Outcome, times: u32, parks: usize| {
        let script = Script::answering(&failed.name, Direction::Forward, Outcome::Failure, 1)
            .and_answering(&step.name, Direction::Compensation, outcome, times);
        let name = format!(
            "{} fails and the compensation of {} answers {} {times} times",
            failed.name,
            step.name,
            outcome.as_str()
        );
        let parked = if is_made { parks } else { 0 };
        Case::new(definition, &name, script, End::Compensated).parked(parked)
    };
    let erring = (1..=most).map(|times| case(Outcome::Error, times, usize::from(times == most)));
    let failing = (most > 0).then(|| case(Outcome::Failure, 2, 2));
    erring.chain(failing).collect()
}

fn place(definition: &SagaDefinition, step: &Step) -> usize {
    let found = definition.step(&step.name);
    found.expect("it is a step of the definition").0
}
