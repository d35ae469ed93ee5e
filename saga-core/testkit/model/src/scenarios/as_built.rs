//! The protocol as built. Each scenario has the trouble that belongs together, as much as can be walked through in
//! well under a minute; all of it at once would take days.

use super::{NONE, scenario};
use crate::{
    definition::{NO_PIVOT, ORDER, PARALLEL},
    world::Scenario,
};

/// The protocol as built.
pub fn as_built() -> Vec<Scenario> {
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
