//! Applies a person's action.

use super::{Decisions, Delivery, Saga, Settlement, State, Status};
use crate::{
    definition::Kind,
    message::{Direction, OperatorRequest},
    rules::Rule,
};

impl Decisions<'_> {
    /// Applies the action if it is legal. An action that is not legal changes nothing.
    pub(super) fn grant(self, saga: &mut Saga, request: OperatorRequest) {
        match request {
            OperatorRequest::Cancel => self.turn(saga),
            OperatorRequest::Retry => self.retry(saga),
            OperatorRequest::Complete { step } => {
                self.settle_if_legal(saga, usize::from(step), Settlement::Completed);
            }
            OperatorRequest::Skip { step } => {
                self.settle_if_legal(saga, usize::from(step), Settlement::Skipped);
            }
            OperatorRequest::NotDone { step } => self.not_done_by_hand(saga, usize::from(step)),
            OperatorRequest::SkipCompensation { step } => {
                self.skip_compensation(saga, usize::from(step));
            }
            OperatorRequest::Abandon => saga.status = Status::Abandoned,
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
                self.send_first(saga, step, Direction::Resolve);
            }
            State::Running(_) => Self::settle(saga, step, settlement),
            State::Resolving(Delivery::UsedUp(_)) => {
                saga.steps[step].settling = None;
                Self::take_on(saga, step);
                Self::settle(saga, step, settlement);
            }
            State::Waiting
            | State::Resolving(Delivery::InFlight(_) | Delivery::BackingOff(_))
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

    /// Counts a pivot as not done. Legal only for a pivot that was asked for in vain.
    fn not_done_by_hand(self, saga: &mut Saga, step: usize) {
        let is_pivot = self.definition.steps[step].kind == Kind::Pivot;
        let is_in_vain = matches!(
            saga.steps[step].state,
            State::Resolving(Delivery::UsedUp(_))
        );
        if is_pivot && is_in_vain {
            saga.steps[step].settling = None;
            Self::take_on(saga, step);
            saga.steps[step].state = State::NotDone;
            Self::begin_compensation(saga);
        }
    }

    fn take_on(saga: &mut Saga, step: usize) {
        saga.steps[step].taken_on = true;
        saga.steps[step].unanswered = true;
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

    fn retry(self, saga: &mut Saga) {
        for step in 0..saga.steps.len() {
            if let Some((direction, Delivery::UsedUp(attempt))) = saga.steps[step].state.delivery()
            {
                self.send_anew(saga, step, direction, attempt);
            }
        }
    }
}
