//! The checks: pure, from what was seen to what is suspicious.

mod effects;
mod events;
mod money;
mod orders;
mod sagas;
mod stock;

use crate::{
    Settings,
    finding::Finding,
    journal::Journal,
    look::Look,
    store::{orders::Order, sagas::Saga},
};
use uuid::Uuid;

pub fn all(look: &Look, journal: &Journal, settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    sagas::check(look, settings, &mut found);
    orders::check(look, journal, settings, &mut found);
    stock::check(look, journal, &mut found);
    money::check(look, &mut found);
    effects::check(look, &mut found);
    events::check(look, &mut found);
    found.sort_by_cached_key(Finding::identity);
    found
}

/// The status of a saga that has ended by its own rules. An abandoned one was ended by a person, who has taken over what
/// it left behind.
fn ended(saga: &Saga) -> Option<&str> {
    (saga.has_ended() && saga.status != "abandoned").then_some(saga.status.as_str())
}

/// Whether an order's effects are final: its saga has ended, or has ended so long ago that history has dropped it.
fn is_final(look: &Look, id: Uuid, order: &Order) -> bool {
    match look.sagas.by_id.get(&id) {
        Some(saga) => ended(saga).is_some(),
        None => order.status != "PENDING" && !in_history(look, id),
    }
}

/// Whether history goes back to sagas of this age.
fn in_history(look: &Look, id: Uuid) -> bool {
    look.sagas.history_floor.is_some_and(|floor| id >= floor)
}
