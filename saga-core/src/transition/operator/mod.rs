//! Decides operators' actions. Every action that reaches a live saga is decided, and the decision is in the saga's log.
//!
//! [`rules`] is the table: it maps the saga and the action to an effect, or to a refusal. The same table gives the
//! legal actions. Therefore an action that [`legal_actions`] names is never refused, and a refusal names the actions
//! that would not be refused. This module carries out the effects, and decides pending actions once an outcome is
//! known.
//!
//! A step that may have run is neither completed nor skipped before its participant was asked (*resolve*). If the step
//! was done, its own result stays. If it was not done, the barrier's refusal makes sure that it never will be, so that
//! work that an operator did by hand is not done a second time. If the participant does not answer, the saga parks, and
//! then a person may decide without the participant, with a warning in the audit.

mod rules;

pub(super) use rules::CANCELLED;
pub use rules::{LegalAction, legal_actions};

use super::draft::Draft;
use crate::{
    definition::StepKind,
    instance::{
        ActionVerdict, Cause, Corrected, LifecycleKind, PendingAction, SagaStatus, Settlement,
        Settling, StepState,
    },
    message::{ActionKind, Direction, OperatorAction},
};
use rules::{Effect, OPERATOR, Refusal, UsedUp, judge};

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
        Effect::Nothing => draft.decide(action, ActionVerdict::ACCEPTED),
        Effect::StartCompensation => {
            draft.decide(action, ActionVerdict::ACCEPTED);
            draft.begin_compensation(cause_of(action));
        }
        Effect::AskPivot(pivot) => {
            draft.decide(action, ActionVerdict::Pending);
            draft.saga.pending_reversals.push(pending(action));
            // The new action replaces an earlier complete or skip of the pivot that had no answer.
            draft.saga.steps[pivot].settling = None;
            draft.start_resolve(pivot, cause_of(action));
        }
        Effect::AwaitPivot => {
            draft.decide(action, ActionVerdict::Pending);
            // A saga that was recovered for this action has no other cause.
            if draft.saga.recovered && draft.saga.pending_reversals.is_empty() {
                draft.saga.resolve_cause = Some(cause_of(action));
            }
            draft.saga.pending_reversals.push(pending(action));
        }
        Effect::TryAgain(used_up) => {
            draft.decide(action, ActionVerdict::ACCEPTED);
            for command in &used_up {
                try_again(draft, command, action.kind.given());
            }
        }
        Effect::SkipAhead(index) => {
            draft.decide(action, ActionVerdict::ACCEPTED);
            draft.settle(index, Settlement::Skipped);
        }
        Effect::ResolveFirst(index) => {
            draft.decide(action, ActionVerdict::Pending);
            resolve_first(draft, index, action);
        }
        Effect::ByHand(index) => {
            let warning = Some(warning(draft, index, &action.kind));
            draft.decide(action, ActionVerdict::Accepted { warning });
            by_hand(draft, index, action);
        }
        Effect::SkipCompensation(index) => {
            draft.decide(action, ActionVerdict::ACCEPTED);
            skip_compensation(draft, index, &action.reason);
        }
        Effect::Abandon => {
            draft.decide(action, ActionVerdict::ACCEPTED);
            abandon(draft, &action.reason);
        }
    }
}

fn cause_of(action: &OperatorAction) -> Cause {
    let code = if action.kind == ActionKind::Cancel {
        CANCELLED
    } else {
        OPERATOR
    };
    Cause::of_saga(code, &action.reason)
}

fn settlement(kind: &ActionKind) -> Settlement {
    if let ActionKind::Complete { result, .. } = kind {
        Settlement::Completed {
            result: result.clone(),
        }
    } else {
        Settlement::Skipped
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

/// Sends a new attempt, and restarts the retry policy's count at it.
fn try_again(draft: &mut Draft<'_>, used_up: &UsedUp, payload: Option<&serde_json::Value>) {
    let UsedUp {
        index,
        direction,
        attempt,
    } = *used_up;
    draft.unpark_now(index);
    if let Some(payload) = payload {
        draft.saga.steps[index].corrected = Some(Corrected {
            direction,
            payload: payload.clone(),
        });
    }
    draft.send_anew(index, direction, attempt);
}

fn resolve_first(draft: &mut Draft<'_>, index: usize, action: &OperatorAction) {
    draft.unpark_now(index);
    draft.record(LifecycleKind::ResolveStarted {
        step: draft.step(index).name.clone(),
        cause: cause_of(action),
    });
    draft.saga.steps[index].settling = Some(Settling {
        asked: Some(pending(action)),
        settlement: settlement(&action.kind),
    });
    draft.send_first(index, Direction::Resolve);
}

/// Returns the risk of deciding about a step without its participant's answer.
fn warning(draft: &Draft<'_>, index: usize, kind: &ActionKind) -> String {
    let step = draft.step(index);
    let (participant, name) = (&step.participant, &step.name);
    let risk = if matches!(kind, ActionKind::Complete { .. }) {
        "if it was not done, the saga goes on without it, and it may still be done later"
    } else {
        "if it was done, or still will be, it stays done and nothing of the saga undoes it"
    };
    format!("{participant} never said whether '{name}' was done: {risk}")
}

/// Carries out a person's decision about a step whose participant does not answer.
fn by_hand(draft: &mut Draft<'_>, index: usize, action: &OperatorAction) {
    draft.unpark_now(index);
    let verdict = refused(
        "decided_by_hand",
        "an operator has decided the step otherwise",
        &[],
    );
    draft.decide_settling(index, &verdict);
    if let ActionKind::NotDone { step } = &action.kind {
        let cause = draft.saga.resolve_cause.clone();
        draft.record(LifecycleKind::StepNotDone { step: step.clone() });
        draft.set(index, StepState::NotDone);
        draft.begin_compensation(cause.unwrap_or_else(|| cause_of(action)));
    } else {
        draft.settle(index, settlement(&action.kind));
    }
    // A late success contradicts the person, and is recorded.
    draft.saga.steps[index].unanswered = *draft.state(index) != StepState::Succeeded;
}

fn skip_compensation(draft: &mut Draft<'_>, index: usize, reason: &str) {
    draft.unpark_now(index);
    let reason = reason.to_owned();
    draft.set(index, StepState::CompensationSkipped { reason });
    draft.record(LifecycleKind::CompensationSkipped {
        step: draft.step(index).name.clone(),
    });
}

/// Ends the saga. The steps keep their state, which shows a person what to clean up.
fn abandon(draft: &mut Draft<'_>, reason: &str) {
    let verdict = refused("abandoned", "the saga was abandoned meanwhile", &[]);
    draft.decide_pending_reversals(&verdict);
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

    /// Decides the actions that waited for the pivot's outcome, now that it is known.
    pub fn decide_pending_reversals(&mut self, verdict: &ActionVerdict) {
        for asked in std::mem::take(&mut self.saga.pending_reversals) {
            self.record_decision(asked, None, verdict.clone());
        }
    }

    /// Decides a complete or skip that waited for the step's outcome. Returns what the operator wanted to make of the
    /// step.
    pub fn decide_settling(&mut self, index: usize, verdict: &ActionVerdict) -> Option<Settlement> {
        let Settling { asked, settlement } = self.saga.steps[index].settling.take()?;
        if let Some(asked) = asked {
            let step = self.step(index).name.clone();
            self.record_decision(asked, Some(step), verdict.clone());
        }
        Some(settlement)
    }

    /// Refuses the actions that waited for a step's outcome, because no answer came. This way no action is pending for
    /// ever. If the outcome comes later after all, it still counts, and so does what the actions asked for.
    pub fn nobody_says(&mut self, index: usize, code: &str) {
        let name = &self.step(index).name;
        let message = format!(
            "the outcome of '{name}' was asked for in vain and a person has to decide; should it come after all, it counts"
        );
        let verdict = refused(code, &message, &legal_actions(self.definition, &self.saga));
        if self.step(index).kind == StepKind::Pivot {
            self.decide_pending_reversals(&verdict);
        }
        if let Some(Settling { asked, settlement }) = self.saga.steps[index].settling.take() {
            if let Some(asked) = asked {
                let step = self.step(index).name.clone();
                self.record_decision(asked, Some(step), verdict);
            }
            self.saga.steps[index].settling = Some(Settling {
                asked: None,
                settlement,
            });
        }
    }

    /// Carries out a pending complete or skip of a step that is known not to be done, now and for ever. Returns true if
    /// one was pending.
    pub fn settle_if_asked(&mut self, index: usize) -> bool {
        let Some(settlement) = self.decide_settling(index, &ActionVerdict::ACCEPTED) else {
            return false;
        };
        self.settle(index, settlement);
        true
    }

    /// Refuses a pending complete or skip of a step that its participant has done: the participant's result stays.
    pub fn settled_otherwise(&mut self, index: usize) {
        let name = self.step(index).name.clone();
        let message = format!("'{name}' turned out to be done, and keeps its own result");
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
