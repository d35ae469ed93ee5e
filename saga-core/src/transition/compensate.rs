//! Turning round: who is compensated, and in which order.

use super::draft::Draft;
use crate::{
    definition::StepKind,
    instance::{ActionVerdict, Cause, LifecycleKind, SagaStatus, StepState},
    message::Direction,
};

impl Draft<'_> {
    /// The saga goes back. Whatever is under way is unknown and compensated like what is done, which the
    /// participants' barrier makes safe; whatever has not begun never will.
    pub fn begin_compensation(&mut self, cause: Cause) {
        self.decide_pending_cancels(&ActionVerdict::Accepted);
        self.record(LifecycleKind::CompensationStarted {
            cause: cause.clone(),
        });
        for step in &mut self.saga.steps {
            match step.state {
                StepState::Waiting => step.state = StepState::Skipped,
                StepState::Running(_) => {
                    step.state = StepState::Unknown;
                    step.unanswered = true;
                }
                // The pivot is answered before anything is compensated, so it is in none of these states.
                StepState::Resolving(_)
                | StepState::Compensating(_)
                | StepState::Compensated
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
                | StepState::Skipped => false,
            };
            if owed && self.descendants_are_clear(index) {
                self.send_first(index, Direction::Compensation);
            }
        }
        self.saga.steps.iter().all(|step| step.state.is_clear())
    }

    fn descendants_are_clear(&self, index: usize) -> bool {
        self.definition
            .steps
            .iter()
            .zip(&self.saga.steps)
            .filter(|(step, _)| step.ancestors.contains(&index))
            .all(|(_, instance)| instance.state.is_clear())
    }
}
