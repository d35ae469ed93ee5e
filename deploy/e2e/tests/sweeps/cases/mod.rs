//! What can go wrong with a saga of a definition, one thing after the other, and how it must end.
//!
//! The tables are those of the sweeps without servers (`saga-core/testkit/tests/sweeps`), with what only a real system
//! has besides: messages that go astray around an outcome that is asked for, and starts that come twice.

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

/// Every case but those that need to know which messages a saga sends; see [`disturbed`].
pub fn all(definition: &Arc<SagaDefinition>) -> Vec<Case> {
    let mut cases = silence::cases(definition);
    cases.extend(answers::cases(definition));
    cases.extend(actions::cases(definition));
    cases
}

/// Steps that have a command of their own.
fn actions(definition: &SagaDefinition) -> impl Iterator<Item = &Step> {
    let steps = definition.steps.iter();
    steps.filter(|step| step.action.is_some())
}

fn pivot(definition: &SagaDefinition) -> &Step {
    &definition.steps[definition
        .pivot()
        .expect("the shipped definitions have a pivot")]
}

/// Attempts of a step's retry policy; 0 without such a command.
fn attempts(step: &Step, direction: Direction) -> u32 {
    let spec = match direction {
        Direction::Forward | Direction::Resolve => step.action.as_ref(),
        Direction::Compensation => step.compensation.as_ref(),
    };
    spec.map_or(0, |spec| spec.retry.attempts)
}

/// A failure turns the saga round, unless it is past its pivot: then a person looks, and it goes forward.
fn end_of_failure(kind: StepKind) -> (End, usize) {
    match kind {
        StepKind::Compensatable | StepKind::Pivot => (End::Compensated, 0),
        StepKind::Retriable => (End::Completed, 1),
    }
}
