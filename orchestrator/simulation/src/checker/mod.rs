//! The checks by name. A check reads the [`history`] of a run and reports a violation.
//!
//! | check | promise |
//! |---|---|
//! | `accepted_is_never_lost` | P1 |
//! | `every_saga_ends`, `says_what_it_waits_for`, `armed_timer`, `comes_to_rest`, `asking_ends` | P2 |
//! | `effects_exactly_once`, `no_effect_after_compensation`, `compensations_run_backwards` | P3 |
//! | `pivot_decides` | P4 |
//! | `nothing_needless` | P5, its last sentence |
//! | `one_advance_per_version` | P6 |
//! | `bad_records_are_kept` | P7 |
//! | the others | the invariants that these rest on |

mod asking;
pub mod history;
pub mod instant;
mod messages;
mod promises;
mod rows;

use history::History;
use std::fmt;

/// A violation, with the name of the check that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub check: &'static str,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.detail)
    }
}

/// A check: returns a description of the violation, if there is one.
pub type Check = fn(&History) -> Option<String>;

/// Checks of the history of a complete run, in the order in which they are worth reading: a violation of an early check
/// often violates later ones, too.
pub const AT_END: &[(&str, Check)] = &[
    ("one_advance_per_version", promises::one_advance_per_version),
    (
        "live_and_history_are_disjoint",
        rows::live_and_history_are_disjoint,
    ),
    ("pivot_decides", promises::pivot_decides),
    (
        "no_effect_after_compensation",
        promises::no_effect_after_compensation,
    ),
    (
        "compensations_run_backwards",
        promises::compensations_run_backwards,
    ),
    ("effects_exactly_once", promises::effects_exactly_once),
    ("asking_ends", asking::asking_ends),
    ("pauses_after_timeouts", asking::pauses_after_timeouts),
    ("accepted_is_never_lost", promises::accepted_is_never_lost),
    ("every_saga_ends", promises::every_saga_ends),
    (
        "errors_end_their_own_attempt",
        messages::errors_end_their_own_attempt,
    ),
    (
        "only_sent_commands_are_timed",
        messages::only_sent_commands_are_timed,
    ),
    ("nothing_needless", promises::nothing_needless),
    ("bad_records_are_kept", promises::bad_records_are_kept),
    ("events_are_gapless", messages::events_are_gapless),
    ("inputs_come_home", messages::inputs_come_home),
    ("bounded_amplification", messages::bounded_amplification),
];

/// The number of checks, from the first on, that also hold for an incomplete run.
const AT_ANY_TIME: usize = 6;

/// Returns the first violation of a complete run.
pub fn at_end(history: &History) -> Option<Violation> {
    observed(history).or_else(|| first(history, AT_END))
}

/// Returns the first violation of a run that was ended early.
pub fn on_the_way(history: &History) -> Option<Violation> {
    first(history, &AT_END[..AT_ANY_TIME]).or_else(|| observed(history))
}

/// Returns the first violation that was found during the run.
pub fn observed(history: &History) -> Option<Violation> {
    history.observed.first().map(|observed| Violation {
        check: observed.check,
        detail: observed.detail.clone(),
    })
}

fn first(history: &History, checks: &[(&'static str, Check)]) -> Option<Violation> {
    checks
        .iter()
        .find_map(|(check, look)| look(history).map(|detail| Violation { check, detail }))
}

#[cfg(test)]
mod tests;
