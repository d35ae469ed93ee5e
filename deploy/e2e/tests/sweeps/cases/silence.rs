//! Cases in which steps and compensations do not answer: their commands or replies arrive only after the saga has
//! ended.

use super::{actions, attempts, pivot};
use crate::script::{Case, End, Script};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    message::{Direction, Outcome},
};
use std::sync::Arc;

pub fn cases(definition: &Arc<SagaDefinition>) -> Vec<Case> {
    let mut cases = Vec::new();
    for is_done in [false, true] {
        for step in actions(definition) {
            let most = attempts(step, Direction::Forward);
            cases.extend((1..=most).map(|times| forward(definition, step, times, is_done)));
        }
        for step in &definition.steps {
            let most = attempts(step, Direction::Compensation);
            cases.extend((1..=most).map(|times| backward(definition, step, times, is_done)));
        }
    }
    cases
}

fn forward(definition: &Arc<SagaDefinition>, step: &Step, times: u32, is_done: bool) -> Case {
    let spent = times == attempts(step, Direction::Forward);
    let (end, parked) = match step.kind {
        StepKind::Compensatable if spent => (End::Compensated, 0),
        // The pivot's outcome is resolved: if the pivot was done, its saved reply says so.
        StepKind::Pivot if spent && !is_done => (End::Compensated, 0),
        StepKind::Retriable if spent => (End::Completed, 1),
        StepKind::Compensatable | StepKind::Pivot | StepKind::Retriable => (End::Completed, 0),
    };
    let script = Script::default().and_silent(&step.name, Direction::Forward, times, is_done);
    let name = format!("{} is silent {}", step.name, how(times, is_done));
    Case::new(definition, &name, script, end).parked(parked)
}

/// The pivot fails, and a compensation does not answer.
fn backward(definition: &Arc<SagaDefinition>, step: &Step, times: u32, is_done: bool) -> Case {
    let pivot = &pivot(definition).name;
    let script = Script::answering(pivot, Direction::Forward, Outcome::Failure, 1).and_silent(
        &step.name,
        Direction::Compensation,
        times,
        is_done,
    );
    let parked = usize::from(times == attempts(step, Direction::Compensation));
    let name = format!(
        "{pivot} fails and the compensation of {} is silent {}",
        step.name,
        how(times, is_done)
    );
    Case::new(definition, &name, script, End::Compensated).parked(parked)
}

fn how(times: u32, is_done: bool) -> String {
    let done = if is_done { "though done" } else { "undone" };
    format!("{times} times, {done}")
}
