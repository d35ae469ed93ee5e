//! Moves a saga forward: starts steps, and handles attempts that ended without success or failure.

use super::{
    command::{command_name, spec},
    draft::{Draft, after_ms, deliver},
};
use crate::{
    definition::StepKind,
    ids::Timestamp,
    instance::{Cause, Delivery, LifecycleKind, StepState},
    message::{Direction, Fault},
    mutant::{self, Mutant},
};
use chrono::TimeDelta;
use sha2::{Digest, Sha256};

/// Says how an attempt without a success or failure ended.
pub(super) enum AttemptEnd {
    Errored(Fault),
    /// No reply had come at this instant.
    TimedOut {
        due_at: Timestamp,
    },
}

/// Limits how late a timeout may be seen to count as punctual. Timers fire a little late, so the delay before the next
/// attempt runs from the instant at which the timeout was due. This way the lateness does not add up over the attempts.
/// For a timeout that is seen later than this limit, the delay runs from the instant at which it is seen: after an
/// outage of the orchestrator there is a pause, too.
const LATENESS_ALLOWED: TimeDelta = TimeDelta::seconds(1);

impl Draft<'_> {
    /// Sends every step whose ancestors are all done or skipped. Returns true if all steps are done or skipped. The
    /// direct predecessors are not enough: a predecessor that was skipped early says nothing about the steps before it.
    pub fn advance_forward(&mut self) -> bool {
        if self.is_recovering() {
            return false;
        }
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

    /// Returns true while the pivot of a recovered saga is being resolved.
    fn is_recovering(&self) -> bool {
        let pivot = self.definition.pivot();
        self.saga.recovered
            && pivot.is_some_and(|pivot| matches!(self.state(pivot), StepState::Resolving(_)))
    }

    /// Returns true if the pivot is done. While a compensatable step runs, that is true only of a recovered saga, which
    /// sends its steps once more. Such a saga only goes forward, so the step must not fail any more.
    pub fn is_past_pivot(&self) -> bool {
        let pivot = self.definition.pivot();
        pivot.is_some_and(|pivot| *self.state(pivot) == StepState::Succeeded)
    }

    /// Returns true if a saga that goes forward need not wait for the step any more. In such a saga, only an operator
    /// skips steps.
    fn is_behind(&self, index: usize) -> bool {
        matches!(self.state(index), StepState::Succeeded | StepState::Skipped)
    }

    /// Handles an attempt that ended without a decision: schedules the next attempt, or gives up if none is left.
    pub fn attempt_ended(
        &mut self,
        index: usize,
        direction: Direction,
        attempt: u32,
        end: AttemptEnd,
    ) {
        let ended_at = match end {
            AttemptEnd::TimedOut { due_at } if self.at - due_at <= LATENESS_ALLOWED => due_at,
            AttemptEnd::Errored(_) | AttemptEnd::TimedOut { .. } => self.at,
        };
        let used_up = self.is_used_up(index, direction, attempt);
        let retry_at = (!used_up).then(|| self.retry_at(index, direction, attempt, ended_at));
        let part = self.part(index, direction, attempt);
        let (fault, used_up_fault) = match end {
            AttemptEnd::Errored(fault) => {
                self.record(LifecycleKind::StepErrored {
                    part,
                    fault: fault.clone(),
                    retry_at,
                });
                let used_up = self.exhausted(index, direction, attempt, &fault);
                (fault, used_up)
            }
            AttemptEnd::TimedOut { .. } => {
                self.record(LifecycleKind::StepTimedOut { part, retry_at });
                let fault = self.timed_out(index, direction, attempt);
                (fault.clone(), fault)
            }
        };
        match retry_at {
            Some(_) if mutant::on(Mutant::NoPauseAfterTimeout) && fault.code == TIMED_OUT => {
                self.send(index, direction, attempt + 1);
            }
            Some(until) => {
                let delivery = Delivery::BackingOff {
                    attempt,
                    until,
                    fault,
                };
                self.set(index, deliver(direction, delivery));
            }
            None => self.give_up(index, direction, attempt, used_up_fault),
        }
    }

    fn is_used_up(&self, index: usize, direction: Direction, attempt: u32) -> bool {
        spec(self.step(index), direction).is_none_or(|spec| {
            let limit = match direction {
                Direction::Forward | Direction::Compensation => spec.retry.attempts,
                Direction::Resolve => self.askings(index, spec.retry.attempts),
            };
            self.spent(index, attempt) >= limit
        })
    }

    /// Returns how often the step's outcome is asked for. Before the saga's deadline there is no limit unless the
    /// definition sets one, because only the answer decides the saga's direction. After the deadline the retry policy's
    /// limit applies, too.
    fn askings(&self, index: usize, policy: u32) -> u32 {
        if mutant::on(Mutant::AskWithoutEnd) {
            return u32::MAX;
        }
        let set = self.step(index).resolve_attempts.unwrap_or(u32::MAX);
        if self.saga.overdue {
            set.min(policy)
        } else {
            set
        }
    }

    /// Returns the number of attempts since the policy began to count.
    fn spent(&self, index: usize, attempt: u32) -> u32 {
        (attempt + 1).saturating_sub(self.saga.steps[index].counted_from)
    }

    fn retry_at(
        &self,
        index: usize,
        direction: Direction,
        attempt: u32,
        ended_at: Timestamp,
    ) -> Timestamp {
        let step = self.step(index);
        let delay_ms = spec(step, direction).map_or(0, |spec| {
            let seed = jitter_seed(&self.saga.id.0, &step.name, direction, attempt);
            spec.retry.delay_ms(self.spent(index, attempt), seed)
        });
        after_ms(ended_at, delay_ms)
    }

    fn give_up(&mut self, index: usize, direction: Direction, attempt: u32, fault: Fault) {
        if mutant::on(Mutant::GiveUpCompensations) && direction == Direction::Compensation {
            self.set(index, StepState::Compensated);
            return;
        }
        let step = self.step(index);
        match (direction, step.kind) {
            (Direction::Forward, StepKind::Compensatable) if !self.is_past_pivot() => {
                self.begin_compensation(Cause::of_step(&step.name, &fault));
            }
            (Direction::Forward, StepKind::Pivot) => {
                self.start_resolve(index, Cause::of_step(&step.name, &fault));
            }
            (Direction::Resolve, _) => {
                let fault = self.unresolved(index, attempt, &fault);
                self.park(index, direction, attempt, fault);
            }
            (Direction::Compensation, _)
            | (Direction::Forward, StepKind::Compensatable | StepKind::Retriable) => {
                self.park(index, direction, attempt, fault);
            }
        }
    }

    /// Asks whether the pivot was done. Nothing is compensated before the answer.
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
        match self.state(index).delivery() {
            // The pivot was resolved before without an answer. The attempt numbers continue, so that no two commands
            // have the same id.
            Some((Direction::Resolve, delivery)) => {
                let before = delivery.attempt();
                self.send_anew(index, Direction::Resolve, before);
            }
            Some((Direction::Forward | Direction::Compensation, _)) | None => {
                self.send_first(index, Direction::Resolve);
            }
        }
    }

    fn timed_out(&self, index: usize, direction: Direction, attempt: u32) -> Fault {
        let step = self.step(index);
        let command = command_name(step, direction);
        let message = format!(
            "{} did not answer {command} in {}",
            step.participant,
            attempts(self.spent(index, attempt))
        );
        Fault::new(TIMED_OUT, message)
    }

    /// Returns the fault of a step whose outcome is unknown and whose attempts to resolve it are used up.
    fn unresolved(&self, index: usize, attempt: u32, last: &Fault) -> Fault {
        let step = self.step(index);
        let code = match step.kind {
            StepKind::Pivot => PIVOT_UNRESOLVED,
            StepKind::Compensatable | StepKind::Retriable => "step_unresolved",
        };
        let action = command_name(step, Direction::Forward);
        let message = format!(
            "{} was asked {} whether {action} was done, and did not say: {}",
            step.participant,
            times(self.spent(index, attempt)),
            last.message
        );
        Fault::new(code, message)
    }

    fn exhausted(&self, index: usize, direction: Direction, attempt: u32, last: &Fault) -> Fault {
        let command = command_name(self.step(index), direction);
        let message = format!(
            "{command} went wrong in {}, last with {}: {}",
            attempts(self.spent(index, attempt)),
            last.code,
            last.message
        );
        Fault::new("retries_exhausted", message)
    }
}

/// No reply came.
const TIMED_OUT: &str = "timed_out";
/// No reply said whether the pivot was done.
const PIVOT_UNRESOLVED: &str = "pivot_unresolved";

fn times(count: u32) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

fn attempts(count: u32) -> String {
    if count == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{count} attempts")
    }
}

/// Returns the seed of a retry's jitter. It depends on nothing else, so the same retry has the same delay everywhere.
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
