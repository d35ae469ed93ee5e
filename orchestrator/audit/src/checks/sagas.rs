//! Checks of sagas without regard to other data.

use crate::{
    Settings,
    finding::{Check, Finding},
    look::Look,
    store::sagas::RowState,
};
use chrono::TimeDelta;

pub fn check(look: &Look, settings: &Settings, found: &mut Vec<Finding>) {
    for id in &look.sagas.overlapping {
        let detail = "it is among the live sagas and in history";
        found.push(Finding::of_saga(Check::LiveAndHistoryOverlap, *id, detail));
    }
    let overdue = TimeDelta::from_std(settings.overdue).unwrap_or(TimeDelta::MAX);
    for (id, saga) in &look.sagas.by_id {
        let RowState::Live {
            waiting_kind,
            waiting_since,
            next_due,
            queued_since,
            ..
        } = &saga.state
        else {
            continue;
        };
        if saga.status == "parked" {
            if saga.reason.is_none() {
                let detail = "it needs a person, who cannot see why";
                found.push(Finding::of_saga(Check::ParkedWithoutReason, *id, detail));
            }
            continue;
        }
        if settings.drained {
            let detail = format!(
                "it is {}, waiting on {waiting_kind} since {waiting_since}",
                saga.status
            );
            found.push(Finding::of_saga(Check::NotEnded, *id, detail));
        }
        if let Some(due) = next_due.filter(|due| look.sagas.now - *due > overdue) {
            let detail = format!(
                "it is {}, waiting on {waiting_kind} since {waiting_since}; it was to move at {due}",
                saga.status
            );
            found.push(Finding::of_saga(Check::SagaStandsStill, *id, detail));
        } else if let Some(since) = queued_since.filter(|at| look.sagas.now - *at > overdue) {
            let detail = format!(
                "it is {}, and its command of {since} was not picked up",
                saga.status
            );
            found.push(Finding::of_saga(Check::SagaStandsStill, *id, detail));
        }
    }
}
