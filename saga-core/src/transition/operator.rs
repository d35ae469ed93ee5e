//! What a person may ask for. Every action that reaches a saga is decided, and the decision stands in its log.

use super::{
    draft::Draft,
    timer::{Turning, turning},
};
use crate::{
    instance::{ActionVerdict, Cause, Delivery, LifecycleKind, PendingCancel, Phase},
    message::{ActionKind, Direction, OperatorAction},
};

/// Cancels that can wait for one pivot's outcome; more than a row should carry along is asked by a machine.
const MAX_PENDING_CANCELS: usize = 8;

/// The cause's code of a saga that an operator, or a service for a customer, cancelled.
const CANCELLED: &str = "cancelled";

pub(super) fn apply(draft: &mut Draft<'_>, action: &OperatorAction) {
    match action.kind {
        ActionKind::Cancel => cancel(draft, action),
        ActionKind::Retry => retry(draft, action),
    }
}

pub(super) fn refused(code: &str, message: &str) -> ActionVerdict {
    ActionVerdict::Refused {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

impl Draft<'_> {
    fn decide(&mut self, action: &OperatorAction, verdict: ActionVerdict) {
        self.record(LifecycleKind::ActionDecided {
            action_id: action.action_id,
            action: word(&action.kind).to_owned(),
            actor: action.actor.clone(),
            reason: action.reason.clone(),
            verdict: verdict.clone(),
        });
        self.verdict = Some(verdict);
    }

    /// The pivot's outcome is known, and with it what becomes of the cancels that waited for it.
    pub fn decide_pending_cancels(&mut self, verdict: &ActionVerdict) {
        for pending in std::mem::take(&mut self.saga.pending_cancels) {
            self.record(LifecycleKind::ActionDecided {
                action_id: pending.action_id,
                action: word(&ActionKind::Cancel).to_owned(),
                actor: pending.actor,
                reason: pending.reason,
                verdict: verdict.clone(),
            });
        }
    }

    fn keep_pending(&mut self, action: &OperatorAction) {
        self.saga.pending_cancels.push(PendingCancel {
            action_id: action.action_id,
            actor: action.actor.clone(),
            reason: action.reason.clone(),
        });
    }
}

fn word(kind: &ActionKind) -> &'static str {
    match kind {
        ActionKind::Cancel => "cancel",
        ActionKind::Retry => "retry",
    }
}

fn cancel(draft: &mut Draft<'_>, action: &OperatorAction) {
    let cause = Cause::of_saga(CANCELLED, &action.reason);
    match turning(draft) {
        Turning::Back => {
            draft.decide(action, ActionVerdict::Accepted);
            draft.begin_compensation(cause);
        }
        Turning::Ask(pivot) => {
            draft.decide(action, ActionVerdict::Pending);
            draft.keep_pending(action);
            draft.start_resolve(pivot, cause);
        }
        Turning::Asking if draft.saga.pending_cancels.len() >= MAX_PENDING_CANCELS => {
            let verdict = refused(
                "already_pending",
                "enough cancels wait for the pivot's outcome already",
            );
            draft.decide(action, verdict);
        }
        Turning::Asking => {
            draft.decide(action, ActionVerdict::Pending);
            draft.keep_pending(action);
        }
        Turning::No => {
            let verdict = too_late(draft);
            draft.decide(action, verdict);
        }
    }
}

fn too_late(draft: &Draft<'_>) -> ActionVerdict {
    match (draft.phase(), &draft.saga.cause) {
        (Phase::Compensating, Some(cause)) if cause.step.is_none() && cause.code == CANCELLED => {
            ActionVerdict::Accepted
        }
        (Phase::Compensating, cause) => refused(
            "already_compensating",
            &format!(
                "the saga is being compensated already: {}",
                cause.as_ref().map_or("", |cause| cause.code.as_str())
            ),
        ),
        (Phase::Running, _) => refused(
            "past_pivot",
            "the saga's pivot is done, so it can only go forward",
        ),
    }
}

fn retry(draft: &mut Draft<'_>, action: &OperatorAction) {
    let used_up: Vec<(usize, Direction, Delivery)> = draft
        .saga
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| {
            let (direction, delivery) = step.state.delivery()?;
            delivery
                .used_up()
                .map(|_| (index, direction, delivery.clone()))
        })
        .collect();
    if used_up.is_empty() {
        let verdict = refused("not_parked", "nothing of the saga waits for a person");
        draft.decide(action, verdict);
        return;
    }
    draft.decide(action, ActionVerdict::Accepted);
    for (index, direction, delivery) in used_up {
        let next = delivery.attempt() + 1;
        draft.saga.steps[index].counted_from = next;
        draft.unpark(index, &delivery);
        draft.send(index, direction, next);
    }
}
