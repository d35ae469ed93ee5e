//! What a person may ask for. Every action that reaches a live saga is decided, and the decision stands in its log.
//!
//! [`rules`] is the table: from the saga and the action to what it would do, or to why not. The same table says what
//! is legal now, so an action that [`legal_actions`] names is never refused, and a refusal names those that would not
//! be. This module carries out what the table says, and decides later what had to wait for an outcome.
//!
//! A step that may have run is neither completed nor skipped before its participant was asked (*resolve*): if it was
//! done its own result stands, and if it was not, the barrier's refusal makes sure that it never will be, so that what
//! an operator did by hand is not done a second time.

mod rules;

pub use rules::{LegalAction, legal_actions};

use super::draft::Draft;
use crate::{
    instance::{
        ActionVerdict, Cause, Corrected, LifecycleKind, PendingAction, SagaStatus, Settlement,
        Settling, StepState,
    },
    message::{ActionKind, Direction, OperatorAction},
};
use rules::{Effect, Refusal, UsedUp, judge};

/// The cause's code of a saga that somebody no longer wanted.
const CANCELLED: &str = "cancelled";
/// The cause's code of a saga that an operator turned round.
const OPERATOR: &str = "operator";

pub(super) fn apply(draft: &mut Draft<'_>, action: &OperatorAction) {
    let judged = if action.reason.trim().is_empty() {
        let message = "an action needs a reason".to_owned();
        Err(Refusal::new("no_reason", message))
    } else {
        judge(draft.definition, &draft.saga, &action.kind)
    };
    match judged {
        Ok(effect) => carry_out(draft, action, effect),
        Err(refusal) => {
            let legal = legal_actions(draft.definition, &draft.saga);
            let verdict = refused(refusal.code, &refusal.message, &legal);
            draft.decide(action, verdict);
        }
    }
}

pub(super) fn refused(code: &str, message: &str, legal: &[LegalAction]) -> ActionVerdict {
    ActionVerdict::Refused {
        code: code.to_owned(),
        message: message.to_owned(),
        legal: legal.iter().map(LegalAction::to_string).collect(),
    }
}

fn carry_out(draft: &mut Draft<'_>, action: &OperatorAction, effect: Effect) {
    match effect {
        Effect::Nothing => draft.decide(action, ActionVerdict::Accepted),
        Effect::TurnBack => {
            draft.decide(action, ActionVerdict::Accepted);
            draft.begin_compensation(cause_of(action));
        }
        Effect::AskPivot(pivot) => {
            draft.decide(action, ActionVerdict::Pending);
            draft.saga.pending_turns.push(pending(action));
            draft.start_resolve(pivot, cause_of(action));
        }
        Effect::AwaitPivot => {
            draft.decide(action, ActionVerdict::Pending);
            draft.saga.pending_turns.push(pending(action));
        }
        Effect::TryAgain(used_up) => {
            draft.decide(action, ActionVerdict::Accepted);
            for command in &used_up {
                try_again(draft, command, action.kind.given());
            }
        }
        Effect::SkipAhead(index) => {
            draft.decide(action, ActionVerdict::Accepted);
            draft.settle(index, Settlement::Skipped);
        }
        Effect::ResolveFirst(index) => {
            draft.decide(action, ActionVerdict::Pending);
            resolve_first(draft, index, action);
        }
        Effect::SkipCompensation(index) => {
            draft.decide(action, ActionVerdict::Accepted);
            skip_compensation(draft, index, &action.reason);
        }
        Effect::Abandon => {
            draft.decide(action, ActionVerdict::Accepted);
            abandon(draft, &action.reason);
        }
    }
}

fn cause_of(action: &OperatorAction) -> Cause {
    let code = match action.kind {
        ActionKind::Cancel => CANCELLED,
        ActionKind::Compensate
        | ActionKind::Retry { .. }
        | ActionKind::Complete { .. }
        | ActionKind::Skip { .. }
        | ActionKind::Abandon => OPERATOR,
    };
    Cause::of_saga(code, &action.reason)
}

fn settlement(kind: &ActionKind) -> Settlement {
    match kind {
        ActionKind::Complete { result, .. } => Settlement::Completed {
            result: result.clone(),
        },
        ActionKind::Skip { .. }
        | ActionKind::Retry { .. }
        | ActionKind::Cancel
        | ActionKind::Compensate
        | ActionKind::Abandon => Settlement::Skipped,
    }
}

fn pending(action: &OperatorAction) -> PendingAction {
    PendingAction {
        action_id: action.action_id,
        action: action.kind.name(),
        actor: action.actor.clone(),
        reason: action.reason.clone(),
    }
}

/// A new attempt, from which the policy counts anew.
fn try_again(draft: &mut Draft<'_>, used_up: &UsedUp, payload: Option<&serde_json::Value>) {
    let UsedUp {
        index,
        direction,
        attempt,
    } = *used_up;
    draft.unpark_now(index);
    let step = &mut draft.saga.steps[index];
    step.counted_from = attempt + 1;
    if let Some(payload) = payload {
        step.corrected = Some(Corrected {
            direction,
            payload: payload.clone(),
        });
    }
    draft.send(index, direction, attempt + 1);
}

fn resolve_first(draft: &mut Draft<'_>, index: usize, action: &OperatorAction) {
    draft.unpark_now(index);
    draft.record(LifecycleKind::ResolveStarted {
        step: draft.step(index).name.clone(),
        cause: cause_of(action),
    });
    draft.saga.steps[index].settling = Some(Settling {
        asked: pending(action),
        settlement: settlement(&action.kind),
    });
    draft.send_first(index, Direction::Resolve);
}

fn skip_compensation(draft: &mut Draft<'_>, index: usize, reason: &str) {
    draft.unpark_now(index);
    let reason = reason.to_owned();
    draft.set(index, StepState::CompensationSkipped { reason });
    draft.record(LifecycleKind::CompensationSkipped {
        step: draft.step(index).name.clone(),
    });
}

/// The steps stay as they were found: that is what a person has to clear up.
fn abandon(draft: &mut Draft<'_>, reason: &str) {
    let verdict = refused("abandoned", "the saga was abandoned meanwhile", &[]);
    draft.decide_pending_turns(&verdict);
    for index in 0..draft.saga.steps.len() {
        draft.decide_settling(index, &verdict);
    }
    let reason = reason.to_owned();
    draft.record(LifecycleKind::Abandoned {
        reason: reason.clone(),
    });
    draft.saga.status = SagaStatus::Abandoned { reason };
}

impl Draft<'_> {
    fn decide(&mut self, action: &OperatorAction, verdict: ActionVerdict) {
        let step = action.kind.step().map(str::to_owned);
        self.record_decision(pending(action), step, verdict.clone());
        self.verdict = Some(verdict);
    }

    fn record_decision(
        &mut self,
        asked: PendingAction,
        step: Option<String>,
        verdict: ActionVerdict,
    ) {
        self.record(LifecycleKind::ActionDecided {
            action_id: asked.action_id,
            action: asked.action,
            step,
            actor: asked.actor,
            reason: asked.reason,
            verdict,
        });
    }

    /// The pivot's outcome is known, and with it what becomes of the actions that waited for it.
    pub fn decide_pending_turns(&mut self, verdict: &ActionVerdict) {
        for asked in std::mem::take(&mut self.saga.pending_turns) {
            self.record_decision(asked, None, verdict.clone());
        }
    }

    /// What becomes of a complete or a skip that waited for the step's outcome. Returns what was to be made of it.
    pub fn decide_settling(&mut self, index: usize, verdict: &ActionVerdict) -> Option<Settlement> {
        let Settling { asked, settlement } = self.saga.steps[index].settling.take()?;
        let step = self.step(index).name.clone();
        self.record_decision(asked, Some(step), verdict.clone());
        Some(settlement)
    }

    /// The step is known not to be done, now and for ever. True if an operator's wish was waiting for just that.
    pub fn settle_if_asked(&mut self, index: usize) -> bool {
        let Some(settlement) = self.decide_settling(index, &ActionVerdict::Accepted) else {
            return false;
        };
        self.settle(index, settlement);
        true
    }

    /// The step is done by its participant, whose result stands, whatever an operator wanted to make of it.
    pub fn settled_otherwise(&mut self, index: usize) {
        let name = self.step(index).name.clone();
        let message = format!("'{name}' turned out to be done, and its own result stands");
        self.decide_settling(index, &refused("already_done", &message, &[]));
    }

    fn settle(&mut self, index: usize, settlement: Settlement) {
        let step = self.step(index).name.clone();
        match settlement {
            Settlement::Completed { result } => {
                self.saga.steps[index].result = (!result.is_null()).then(|| result.into());
                self.set(index, StepState::Succeeded);
                self.record(LifecycleKind::StepCompleted { step });
                self.pivot_may_be_done(index);
            }
            Settlement::Skipped => {
                self.set(index, StepState::Skipped);
                self.record(LifecycleKind::StepSkipped { step });
            }
        }
    }
}
