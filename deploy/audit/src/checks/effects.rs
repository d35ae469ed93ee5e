//! What participants did, by their barriers: every step done once and undone once, or not at all.

use super::ended;
use crate::{
    finding::{Check, Finding},
    look::Look,
    store::inbox::StepMarks,
};
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
    for ((saga, step), answers) in &look.topics.answers {
        if answers.success && answers.not_done {
            let detail = "answered as done, and as not done for ever";
            found.push(Finding::of_saga(Check::ReplyContradicts, *saga, detail).about(step));
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
