//! The checks: pure functions from a look to suspicious findings.

mod effects;
mod events;
mod finality;
mod money;
mod orders;
mod sagas;
mod stock;

use crate::{Settings, finding::Finding, journal::Journal, look::Look};

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
