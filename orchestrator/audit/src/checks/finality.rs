//! Decides whether a saga has ended, and with it whether its order's effects are final.

use crate::{
    look::Look,
    store::{orders::Order, sagas::Saga},
};
use uuid::Uuid;

/// Returns the status of a saga that has ended by its own rules. An abandoned saga was ended by a person, who has taken
/// over its remaining effects.
pub fn ended(saga: &Saga) -> Option<&str> {
    (saga.has_ended() && saga.status != "abandoned").then_some(saga.status.as_str())
}

/// Returns true if an order's effects are final: its saga has ended, or has ended so long ago that history has dropped
/// it.
pub fn is_final(look: &Look, id: Uuid, order: &Order) -> bool {
    match look.sagas.by_id.get(&id) {
        Some(saga) => ended(saga).is_some(),
        None => order.status != "PENDING" && !in_history(look, id),
    }
}

/// Returns true if history reaches back to sagas of this age.
pub fn in_history(look: &Look, id: Uuid) -> bool {
    look.sagas.history_floor.is_some_and(|floor| id >= floor)
}
