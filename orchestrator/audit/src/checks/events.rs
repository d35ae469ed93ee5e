//! Checks of each saga's events in `saga.events`.

use super::finality::in_history;
use crate::{
    finding::{Check, Finding},
    look::Look,
    store::sagas::Saga,
    topics::Story,
};
use uuid::Uuid;

/// The most missing numbers that a finding names.
const GAPS_NAMED: usize = 5;

pub fn check(look: &Look, found: &mut Vec<Finding>) {
    let nothing = Story::default();
    for (id, saga) in &look.sagas.by_id {
        // The events of the last input are complete only once its offset is committed.
        if look.is_sent(&saga.inputs) {
            let story = look.topics.stories.get(id).unwrap_or(&nothing);
            of_saga(look, *id, saga, story, found);
        }
    }
    for (id, story) in &look.topics.stories {
        for sequence in &story.differing {
            let detail = "the same event was sent with two contents";
            found.push(Finding::of_saga(Check::EventDiffers, *id, detail).about(sequence));
        }
        if !look.sagas.by_id.contains_key(id) && in_history(look, *id) {
            let detail = format!("{} events", story.events.len());
            found.push(Finding::of_saga(Check::EventWithoutSaga, *id, detail));
        }
    }
}

fn of_saga(look: &Look, id: Uuid, saga: &Saga, story: &Story, found: &mut Vec<Finding>) {
    let complete = !may_be_trimmed(look, id);
    if story.events.is_empty() && !complete {
        return;
    }
    let gaps = story.gaps(saga.sequence, complete);
    if !gaps.is_empty() {
        let named: Vec<String> = gaps
            .iter()
            .take(GAPS_NAMED)
            .map(ToString::to_string)
            .collect();
        let detail = format!(
            "{} of {} are missing: {}",
            gaps.len(),
            saga.sequence,
            named.join(", ")
        );
        found.push(Finding::of_saga(Check::EventGap, id, detail));
    }
    let ends = story.ends();
    if ends.len() > 1 {
        let detail = format!("{ends:?}");
        found.push(Finding::of_saga(Check::TerminalEventTwice, id, detail));
    }
    match (saga.has_ended(), ends.last()) {
        (true, None) => {
            let detail = format!("it is {} and no event says so", saga.status);
            found.push(Finding::of_saga(Check::TerminalEventMissing, id, detail));
        }
        (ended, Some((sequence, status))) if !ended || *status != saga.status => {
            let detail = format!("event {sequence} says {status}, its row {}", saga.status);
            found.push(Finding::of_saga(
                Check::TerminalEventContradicts,
                id,
                detail,
            ));
        }
        (_, _) => {}
    }
}

/// Returns true if the topic may have dropped the saga's first events: the saga is older than the first record of a
/// partition that has dropped records.
fn may_be_trimmed(look: &Look, id: Uuid) -> bool {
    let began_ms = (id.as_u128() >> 80) as i64;
    let trimmed = look.topics.trimmed.values();
    trimmed.max().is_some_and(|oldest| began_ms <= *oldest)
}
