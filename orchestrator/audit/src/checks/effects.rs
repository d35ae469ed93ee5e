//! Checks of participants' effects. By the barriers, every step was done once and compensated once, or not at all.
//! Every effect on an order is of the order's own saga.

use super::finality::ended;
use crate::{
    finding::{Check, Finding},
    look::Look,
    store::inbox::StepMarks,
};
use std::collections::BTreeSet;
use uuid::Uuid;

pub fn check(look: &Look, found: &mut Vec<Finding>) {
    for inbox in look.inboxes.values() {
        for (saga, steps) in &inbox.steps {
            let status = look.sagas.by_id.get(saga).and_then(ended);
            for (step, marks) in steps {
                of_step(*saga, step, marks, status, found);
            }
        }
    }
    of_whom(look, found);
    for ((saga, step), answers) in &look.topics.answers {
        if answers.success && answers.not_done {
            let detail = "answered as done, and as not done for ever";
            found.push(Finding::of_saga(Check::ReplyContradicts, *saga, detail).about(step));
        }
    }
}

/// Checks that each effect on an order is of the order's saga. An order and its saga have the same id.
fn of_whom(look: &Look, found: &mut Vec<Finding>) {
    let stock = look.stock.reservations.iter().flat_map(|(order, rows)| {
        let sagas = rows.iter().map(|row| row.saga);
        sagas.map(move |saga| (*order, saga, "stock"))
    });
    let payments = look.payments.rows.iter();
    let money = payments.map(|(order, payment)| (*order, payment.saga, "money"));
    let effects: BTreeSet<(Uuid, Uuid, &str)> = stock.chain(money).collect();
    for (order, saga, what) in effects {
        if saga != order && look.orders.by_id.contains_key(&order) {
            let detail = format!("its {what} is held by saga {saga}");
            found.push(Finding::of_saga(Check::EffectOfAnotherSaga, order, detail).about(what));
        }
    }
}

fn of_step(
    saga: Uuid,
    step: &str,
    marks: &StepMarks,
    status: Option<&str>,
    found: &mut Vec<Finding>,
) {
    let done = marks.forward.as_ref().filter(|mark| mark.is_done());
    let undone = marks.compensation.as_ref().filter(|mark| mark.is_done());
    if let (Some(done), Some(undone)) = (done, undone)
        && done.at > undone.at
    {
        let detail = format!("done at {}, compensated at {}", done.at, undone.at);
        found.push(Finding::of_saga(Check::EffectAfterCompensation, saga, detail).about(step));
    }
    match (status, done, undone) {
        (Some("compensated"), Some(_), None) => {
            let detail = "the saga is compensated, the step is done and was not undone";
            found.push(Finding::of_saga(Check::EffectNotCompensated, saga, detail).about(step));
        }
        (Some("completed"), _, Some(_)) => {
            let detail = "the saga is completed, the step was compensated";
            found.push(
                Finding::of_saga(Check::CompensatedThoughCompleted, saga, detail).about(step),
            );
        }
        (_, _, _) => {}
    }
}
