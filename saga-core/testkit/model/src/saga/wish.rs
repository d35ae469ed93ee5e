//! What a person asks for, and what becomes of it.

use super::{Decisions, Delivery, Saga, Settlement, State, Status};
use crate::{
    definition::Kind,
    message::{Direction, Wish},
    rules::Rule,
};

impl Decisions<'_> {
    /// What is not legal changes nothing.
    pub(super) fn grant(self, saga: &mut Saga, wish: Wish) {
        match wish {
            Wish::Cancel => self.turn(saga),
            Wish::Retry => Self::retry(saga),
            Wish::Complete { step } => {
                self.settle_if_legal(saga, usize::from(step), Settlement::Completed);
            }
            Wish::Skip { step } => {
                self.settle_if_legal(saga, usize::from(step), Settlement::Skipped);
            }
            Wish::SkipCompensation { step } => self.skip_compensation(saga, usize::from(step)),
            Wish::Abandon => saga.status = Status::Abandoned,
        }
    }

    fn settle_if_legal(self, saga: &mut Saga, step: usize, settlement: Settlement) {
        let is_pivot = self.definition.steps[step].kind == Kind::Pivot;
        let is_skip = settlement == Settlement::Skipped;
        if saga.status != Status::Running || (is_skip && is_pivot) {
            return;
        }
        match saga.steps[step].state {
            State::Waiting if is_skip => Self::settle(saga, step, settlement),
            State::Running(_) if self.rules.on(Rule::ResolveBeforeSettling) => {
                saga.steps[step].settling = Some(settlement);
                Self::send_first(saga, step, Direction::Resolve);
            }
            State::Running(_) => Self::settle(saga, step, settlement),
            State::Waiting
            | State::Resolving(_)
            | State::Succeeded
            | State::Failed
            | State::NotDone
            | State::Unknown
            | State::Compensating(_)
            | State::Compensated
            | State::CompensationSkipped
            | State::Skipped => {}
        }
    }

    fn skip_compensation(self, saga: &mut Saga, step: usize) {
        let is_owed = match saga.steps[step].state {
            State::Compensating(_) => true,
            State::Succeeded | State::Unknown => {
                self.definition.steps[step].kind == Kind::Compensatable
            }
            State::Waiting
            | State::Running(_)
            | State::Resolving(_)
            | State::Failed
            | State::NotDone
            | State::Compensated
            | State::CompensationSkipped
            | State::Skipped => false,
        };
        if saga.status == Status::Compensating && is_owed {
            saga.steps[step].state = State::CompensationSkipped;
        }
    }

    fn retry(saga: &mut Saga) {
        for step in 0..saga.steps.len() {
            if let Some((direction, Delivery::UsedUp(attempt))) = saga.steps[step].state.delivery()
            {
                saga.steps[step].counted_from = attempt + 1;
                Self::send(saga, step, direction, attempt + 1);
            }
        }
    }
}
