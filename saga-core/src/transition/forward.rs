//! Going forward: starting steps, and what ends an attempt without an answer that decides.

use super::{after_ms, draft::Draft, draft::spec};
use crate::{
    definition::StepKind,
    ids::Timestamp,
    instance::{Cause, Delivery, LifecycleKind, StepState},
    message::{Direction, Fault},
    mutant::{self, Mutant},
};
use sha2::{Digest, Sha256};

/// How an attempt ended that was not answered with success or failure.
pub(super) enum AttemptEnd {
    Errored(Fault),
    TimedOut,
}

impl Draft<'_> {
    /// Sends every step before which nothing is left to do. True if that is so of all of them. To look at the direct
    /// predecessors is not enough: one that was skipped ahead of its turn says nothing of those before it.
    pub fn advance_forward(&mut self) -> bool {
        for index in 0..self.saga.steps.len() {
            let ready = *self.state(index) == StepState::Waiting
                && self
                    .step(index)
                    .ancestors
                    .iter()
                    .all(|before| self.is_behind(*before));
            if ready {
                self.send_first(index, Direction::Forward);
            }
        }
        (0..self.saga.steps.len()).all(|index| self.is_behind(index))
    }

    /// Whether a saga that goes forward need not wait for the step any more.
    fn is_behind(&self, index: usize) -> bool {
        match self.state(index) {
            // On the way forward only an operator skips.
            StepState::Succeeded | StepState::Skipped => true,
            StepState::Waiting
            | StepState::Running(_)
            | StepState::Resolving(_)
            | StepState::Failed { .. }
            | StepState::NotDone
            | StepState::Unknown
            | StepState::Compensating(_)
            | StepState::Compensated
            | StepState::CompensationSkipped { .. } => false,
        }
    }

    /// The current attempt ended without deciding anything: the next one, now or later, or none is left.
    pub fn attempt_ended(
        &mut self,
        index: usize,
        direction: Direction,
        attempt: u32,
        end: AttemptEnd,
    ) {
        let used_up = self.is_used_up(index, direction, attempt);
        let retry_at = (!used_up).then(|| self.retry_at(index, direction, attempt));
        let part = self.part(index, direction, attempt);
        match (end, retry_at) {
            (AttemptEnd::TimedOut, Some(_)) => {
                self.record(LifecycleKind::StepTimedOut { part });
                self.send(index, direction, attempt + 1);
            }
            (AttemptEnd::TimedOut, None) => {
                self.record(LifecycleKind::StepTimedOut { part });
                let fault = self.timed_out(index, direction, attempt);
                self.give_up(index, direction, attempt, fault);
            }
            (AttemptEnd::Errored(fault), Some(until)) => {
                self.record(LifecycleKind::StepErrored {
                    part,
                    fault: fault.clone(),
                    retry_at,
                });
                let delivery = Delivery::BackingOff {
                    attempt,
                    until,
                    fault,
                };
                self.set(index, super::draft::deliver(direction, delivery));
            }
            (AttemptEnd::Errored(fault), None) => {
                self.record(LifecycleKind::StepErrored {
                    part,
                    fault: fault.clone(),
                    retry_at: None,
                });
                let fault = self.exhausted(index, direction, attempt, &fault);
                self.give_up(index, direction, attempt, fault);
            }
        }
    }

    /// A resolve is repeated without limit: only its answer can say which way the saga goes.
    fn is_used_up(&self, index: usize, direction: Direction, attempt: u32) -> bool {
        match direction {
            Direction::Resolve => false,
            Direction::Forward | Direction::Compensation => spec(self.step(index), direction)
                .is_none_or(|spec| self.spent(index, attempt) >= spec.retry.attempts),
        }
    }

    /// Attempts spent since the policy began to count.
    fn spent(&self, index: usize, attempt: u32) -> u32 {
        (attempt + 1).saturating_sub(self.saga.steps[index].counted_from)
    }

    fn retry_at(&self, index: usize, direction: Direction, attempt: u32) -> Timestamp {
        let step = self.step(index);
        let delay_ms = spec(step, direction).map_or(0, |spec| {
            let seed = jitter_seed(&self.saga.id.0, &step.name, direction, attempt);
            spec.retry.delay_ms(self.spent(index, attempt), seed)
        });
        after_ms(self.at, delay_ms)
    }

    fn give_up(&mut self, index: usize, direction: Direction, attempt: u32, fault: Fault) {
        if mutant::on(Mutant::GiveUpCompensations) && direction == Direction::Compensation {
            self.set(index, StepState::Compensated);
            return;
        }
        let step = self.step(index);
        match (direction, step.kind) {
            (Direction::Forward, StepKind::Compensatable) => {
                self.begin_compensation(Cause::of_step(&step.name, &fault));
            }
            (Direction::Forward | Direction::Resolve, StepKind::Pivot) => {
                self.start_resolve(index, Cause::of_step(&step.name, &fault));
            }
            (Direction::Compensation, _)
            | (Direction::Forward, StepKind::Retriable)
            | (Direction::Resolve, StepKind::Compensatable | StepKind::Retriable) => {
                self.park(index, direction, attempt, fault);
            }
        }
    }

    /// Asks whether the pivot was done. Until the answer nothing is compensated.
    pub fn start_resolve(&mut self, index: usize, cause: Cause) {
        if mutant::on(Mutant::CompensateUnresolved) {
            self.set(index, StepState::NotDone);
            self.begin_compensation(cause);
            return;
        }
        self.unpark_now(index);
        self.record(LifecycleKind::ResolveStarted {
            step: self.step(index).name.clone(),
            cause: cause.clone(),
        });
        self.saga.resolve_cause = Some(cause);
        self.send_first(index, Direction::Resolve);
    }

    fn timed_out(&self, index: usize, direction: Direction, attempt: u32) -> Fault {
        let step = self.step(index);
        let command = spec(step, direction).map_or("", |spec| spec.command_type.as_str());
        let message = format!(
            "{} did not answer {command} in {}",
            step.participant,
            attempts(self.spent(index, attempt))
        );
        Fault::new("timed_out", message)
    }

    fn exhausted(&self, index: usize, direction: Direction, attempt: u32, last: &Fault) -> Fault {
        let command =
            spec(self.step(index), direction).map_or("", |spec| spec.command_type.as_str());
        let message = format!(
            "{command} went wrong in {}, last with {}: {}",
            attempts(self.spent(index, attempt)),
            last.code,
            last.message
        );
        Fault::new("retries_exhausted", message)
    }
}

fn attempts(count: u32) -> String {
    if count == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{count} attempts")
    }
}

/// The same retry has the same delay wherever it is computed.
fn jitter_seed(saga: &uuid::Uuid, step: &str, direction: Direction, attempt: u32) -> u64 {
    let digest = Sha256::new()
        .chain_update(saga.as_bytes())
        .chain_update(step.as_bytes())
        .chain_update(direction.as_str().as_bytes())
        .chain_update(attempt.to_be_bytes())
        .finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}
