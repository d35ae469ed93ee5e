//! The scenarios of the protocol as built. Each scenario combines related trouble, as much as can be explored in well
//! under a minute; all trouble at once would take days.

use super::budget::{NONE, scenario};
use crate::{
    definition::{NO_PIVOT, ORDER, PARALLEL, TOO_LARGE},
    world::Scenario,
};

/// Returns the scenarios of the protocol as built.
pub fn as_built() -> Vec<Scenario> {
    let mut scenarios = without_decisions();
    scenarios.extend(with_decisions());
    scenarios
}

/// Returns the scenarios in which a person acts on a parked saga or decides about a step.
fn with_decisions() -> [Scenario; 5] {
    [
        scenario(
            "a person retries",
            &ORDER,
            NONE.failures(2).cancels(1).retries(1).duplicates(1),
        ),
        scenario(
            "a person settles",
            &ORDER,
            NONE.settlements(1).crashes(1).failures(1).cancels(1),
        ),
        scenario(
            "a person settles twice, with errors",
            &NO_PIVOT,
            NONE.settlements(2).errors(1).duplicates(1),
        ),
        scenario(
            "commands that are too large",
            &TOO_LARGE,
            NONE.crashes(1).cancels(1).retries(2).settlements(1),
        ),
        scenario(
            "an unresolved pivot",
            &ORDER,
            NONE.silences(1).cancels(1).retries(1).settlements(1),
        ),
    ]
}

fn without_decisions() -> Vec<Scenario> {
    vec![
        scenario(
            "a crash, a duplicate, a failure and a cancel",
            &ORDER,
            NONE.crashes(1).duplicates(1).failures(1).cancels(1),
        ),
        scenario(
            "errors and a deadline",
            &ORDER,
            NONE.crashes(1).errors(2).duplicates(1).deadlines(1),
        ),
        scenario(
            "a call to the outside",
            &ORDER,
            NONE.crashes(1).calls(1).errors(1).failures(1).cancels(1),
        ),
        scenario(
            "a rival",
            &ORDER,
            NONE.rivals(1).crashes(1).failures(1).cancels(1),
        ),
        scenario(
            "answers that are lost",
            &ORDER,
            NONE.lost_answers(2).duplicates(1).failures(1).cancels(1),
        ),
        Scenario {
            batch: 2,
            ..scenario("batches", &PARALLEL, NONE.crashes(1).failures(1).cancels(1))
        },
        scenario(
            "parallel steps",
            &PARALLEL,
            NONE.crashes(1).errors(1).failures(1).cancels(1),
        ),
        scenario(
            "no pivot",
            &NO_PIVOT,
            NONE.crashes(1)
                .duplicates(1)
                .errors(1)
                .failures(1)
                .cancels(1),
        ),
        scenario(
            "retention",
            &NO_PIVOT,
            NONE.crashes(1).duplicates(1).failures(1).retirements(1),
        ),
    ]
}
