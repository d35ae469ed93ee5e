//! Turning round: who is compensated, and in which order.

use super::{draft::Draft, operator::refused};
use crate::{
    definition::StepKind,
    instance::{ActionVerdict, Cause, LifecycleKind, SagaStatus, StepState},
    message::Direction,
    mutant::{self, Mutant},
};

impl Draft<'_> {
    /// The saga goes back. Whatever is under way is unknown and compensated like what is done, which the
    /// participants' barrier makes safe; whatever has not begun never will.
    pub fn begin_compensation(&mut self, cause: Cause) {
        self.decide_pending_turns(&ActionVerdict::Accepted);
        self.record(LifecycleKind::CompensationStarted {
            cause: cause.clone(),
        });
        for index in 0..self.saga.steps.len() {
            match self.state(index) {
                StepState::Waiting => self.set(index, StepState::Skipped),
                // The pivot is answered before anything is compensated, so it is in neither of these states.
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

    /// Whether it ran no longer matters: its compensation, which is owed now, takes care of both.
    fn give_up_unanswered(&mut self, index: usize) {
        self.unpark_now(index);
        let verdict = refused("compensating", "the saga turned round meanwhile", &[]);
        self.decide_settling(index, &verdict);
        self.set(index, StepState::Unknown);
        self.saga.steps[index].unanswered = true;
    }

    /// Sends the compensation of every step behind which nothing stands any more. True if all are clear.
    pub fn advance_compensation(&mut self) -> bool {
        for index in 0..self.saga.steps.len() {
            let owed = match self.state(index) {
                StepState::Succeeded | StepState::Unknown => {
                    self.step(index).kind == StepKind::Compensatable
                }
                StepState::Waiting
                | StepState::Running(_)
                | StepState::Resolving(_)
                | StepState::Failed { .. }
                | StepState::NotDone
                | StepState::Compensating(_)
                | StepState::Compensated
                | StepState::CompensationSkipped { .. }
                | StepState::Skipped => false,
            };
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
