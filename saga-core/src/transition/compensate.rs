//! Compensates a saga: decides which steps are compensated, and in which order.

use super::{draft::Draft, operator::refused};
use crate::{
    definition::StepKind,
    instance::{ActionVerdict, Cause, LifecycleKind, SagaStatus, StepState},
    message::Direction,
    mutant::{self, Mutant},
};

impl Draft<'_> {
    /// Starts compensating. A step in flight becomes unknown and is compensated like a done step, which the
    /// participants' barrier makes safe. A step that has not begun is skipped.
    pub fn begin_compensation(&mut self, cause: Cause) {
        self.decide_pending_reversals(&ActionVerdict::ACCEPTED);
        self.record(LifecycleKind::CompensationStarted {
            cause: cause.clone(),
        });
        for index in 0..self.saga.steps.len() {
            match self.state(index) {
                // The step may have run before the saga's state was lost.
                StepState::Waiting if self.is_owed_blindly(index) => {
                    self.set(index, StepState::Unknown);
                }
                StepState::Waiting => self.set(index, StepState::Skipped),
                // The pivot is resolved before anything is compensated, so the pivot is in neither of these states.
                StepState::Running(_) | StepState::Resolving(_) => self.give_up_unanswered(index),
                StepState::Compensating(_)
                | StepState::Compensated
                | StepState::CompensationSkipped { .. }
                | StepState::Succeeded
                | StepState::Failed { .. }
                | StepState::NotDone
                | StepState::Unknown
                | StepState::Skipped => {}
            }
        }
        self.saga.status = SagaStatus::Compensating;
        self.saga.cause = Some(cause);
        self.saga.resolve_cause = None;
    }

    fn is_owed_blindly(&self, index: usize) -> bool {
        self.saga.recovered && self.step(index).kind == StepKind::Compensatable
    }

    /// Gives up waiting for a step's answer. The compensation that is owed now is right whether the step ran or not.
    fn give_up_unanswered(&mut self, index: usize) {
        self.unpark_now(index);
        let verdict = refused("compensating", "the saga is being compensated", &[]);
        self.decide_settling(index, &verdict);
        self.set(index, StepState::Unknown);
        self.saga.steps[index].unanswered = true;
    }

    /// Sends the compensation of every step whose descendants are all clear. Returns true if all steps are clear.
    pub fn advance_compensation(&mut self) -> bool {
        for index in 0..self.saga.steps.len() {
            let owed =
                self.state(index).may_be_done() && self.step(index).kind == StepKind::Compensatable;
            if owed && self.descendants_are_clear(index) {
                self.send_first(index, Direction::Compensation);
            }
        }
        self.saga.steps.iter().all(|step| step.state.is_clear())
    }

    fn descendants_are_clear(&self, index: usize) -> bool {
        if mutant::on(Mutant::CompensateInAnyOrder) {
            return true;
        }
        self.definition
            .steps
            .iter()
            .zip(&self.saga.steps)
            .filter(|(step, _)| step.ancestors.contains(&index))
            .all(|(_, instance)| instance.state.is_clear())
    }
}
