//! Lists everything that can go wrong with a saga of a definition, one thing for each case, and how the saga must end.
//!
//! The tables are those of the sweeps without servers (`orchestrator/tests/sweeps`), extended by what only a real
//! system has: messages that are lost or delayed while an outcome is resolved, and duplicate starts.

mod actions;
mod answers;
mod messages;
mod silence;

pub use messages::{bases, disturbed};

use super::script::{Case, End};
use saga_core::{
    definition::{SagaDefinition, Step, StepKind},
    message::Direction,
};
use std::sync::Arc;

/// Returns every case except those that need the messages that a saga sends; see [`disturbed`] for these.
pub fn all(definition: &Arc<SagaDefinition>) -> Vec<Case> {
    let mut cases = silence::cases(definition);
    cases.extend(answers::cases(definition));
    cases.extend(actions::cases(definition));
    cases
}

/// Returns the steps that have a command.
fn actions(definition: &SagaDefinition) -> impl Iterator<Item = &Step> {
    let steps = definition.steps.iter();
    steps.filter(|step| step.action.is_some())
}

fn pivot(definition: &SagaDefinition) -> &Step {
    &definition.steps[definition
        .pivot()
        .expect("the shipped definitions have a pivot")]
}

/// Returns the number of attempts of the command's retry policy, or 0 if the step has no such command.
fn attempts(step: &Step, direction: Direction) -> u32 {
    let spec = match direction {
        Direction::Forward | Direction::Resolve => step.action.as_ref(),
        Direction::Compensation => step.compensation.as_ref(),
    };
    spec.map_or(0, |spec| spec.retry.attempts)
}

/// Returns the end of a saga in which a step of this kind fails, and how often the saga is parked. A failure starts
/// compensation. After the pivot it parks the saga instead, and the saga goes forward after a person's retry.
fn end_of_failure(kind: StepKind) -> (End, usize) {
    match kind {
        StepKind::Compensatable | StepKind::Pivot => (End::Compensated, 0),
        StepKind::Retriable => (End::Completed, 1),
    }
}
