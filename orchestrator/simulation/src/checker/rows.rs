//! Checks of the rows in the tables.

use super::history::History;
use crate::world::number_of;

pub fn live_and_history_are_disjoint(history: &History) -> Option<String> {
    let both = history
        .snapshots
        .iter()
        .find(|snapshot| snapshot.live && snapshot.ended)?;
    Some(format!(
        "saga {} lives and has ended at once",
        number_of(both.instance.id)
    ))
}
