//! Checks of orders against their sagas, and against the journals of clients.

use super::finality::in_history;
use crate::{
    Settings,
    finding::{Check, Finding},
    journal::Journal,
    look::Look,
    store::orders::Order,
};
use std::collections::BTreeMap;
use uuid::Uuid;

pub fn check(look: &Look, journal: &Journal, settings: &Settings, found: &mut Vec<Finding>) {
    accepted(look, journal, settings, found);
    for (id, order) in &look.orders.by_id {
        if look.sagas.by_id.contains_key(id) {
            contradiction(look, *id, order, found);
        } else if in_history(look, *id) && !start_is_under_way(look, *id) {
            let why = if look.topics.dead_sagas.contains(id) {
                "a dead letter names it (sagactl dlq list), which may be replayed"
            } else {
                "its start is neither in the outbox nor in front of the orchestrator"
            };
            let detail = format!("it is {}, of {}; {why}", order.status, order.created_at);
            found.push(Finding::of_saga(Check::OrderWithoutSaga, *id, detail));
        }
    }
}

fn accepted(look: &Look, journal: &Journal, settings: &Settings, found: &mut Vec<Finding>) {
    let mut by_customer: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    for (id, order) in &look.orders.by_id {
        by_customer.entry(order.customer).or_default().push(*id);
    }
    for (id, accepted) in &journal.accepted {
        let too_old = settings.since.is_some() && !look.orders.by_id.contains_key(id);
        if too_old {
            continue;
        }
        if !look.orders.by_id.contains_key(id) {
            let detail = "a client was told that it was accepted";
            found.push(Finding::of_saga(Check::AcceptedOrderMissing, *id, detail));
        }
        let others = by_customer.get(&accepted.customer).map_or(0, Vec::len);
        if accepted.sole && others > 1 {
            let detail = format!(
                "customer {} asked for one order and has {others}",
                accepted.customer
            );
            found.push(Finding::of_saga(Check::OrderPlacedTwice, *id, detail));
        }
    }
}

fn contradiction(look: &Look, id: Uuid, order: &Order, found: &mut Vec<Finding>) {
    let Some(saga) = look.sagas.by_id.get(&id) else {
        return;
    };
    let fits = match (saga.status.as_str(), order.status.as_str()) {
        ("completed", status) => status == "CONFIRMED",
        ("compensated", status) => status == "CANCELLED",
        ("running", status) => status != "CANCELLED",
        ("compensating", status) => status != "CONFIRMED",
        (_, _) => true,
    };
    if !fits {
        let detail = format!("the saga is {}, the order is {}", saga.status, order.status);
        found.push(Finding::of_saga(Check::OrderContradictsSaga, id, detail));
    }
}

/// Returns true if the order's start is in the outbox, or in `saga.inputs` and not consumed yet.
fn start_is_under_way(look: &Look, id: Uuid) -> bool {
    let ahead = |(partition, offset): &(i32, i64)| {
        *offset >= look.handled.get(partition).copied().unwrap_or_default()
    };
    look.orders.outbox.contains(&id)
        || look
            .topics
            .starts
            .get(&id)
            .is_some_and(|starts| starts.iter().any(ahead))
}
