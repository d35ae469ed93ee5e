//! The explored scenarios: the protocol as built under bounded trouble, and the same with one rule knocked out.

mod as_built;
mod knock_outs;

pub use as_built::as_built;
pub use knock_outs::{KnockOut, knock_outs};

use crate::{
    definition::Definition,
    rules::Rules,
    world::{Budget, Scenario},
};

/// A budget without trouble; the methods of `Budget` add some.
const NONE: Budget = Budget {
    crashes: 0,
    lost_answers: 0,
    duplicates: 0,
    rivals: 0,
    errors: 0,
    failures: 0,
    calls: 0,
    cancels: 0,
    deadlines: 0,
    retries: 0,
    settlements: 0,
    silences: 0,
    retirements: 0,
};

impl Budget {
    const fn crashes(self, crashes: u8) -> Self {
        Self { crashes, ..self }
    }

    const fn lost_answers(self, lost_answers: u8) -> Self {
        Self {
            lost_answers,
            ..self
        }
    }

    const fn duplicates(self, duplicates: u8) -> Self {
        Self { duplicates, ..self }
    }

    const fn rivals(self, rivals: u8) -> Self {
        Self { rivals, ..self }
    }

    const fn errors(self, errors: u8) -> Self {
        Self { errors, ..self }
    }

    const fn failures(self, failures: u8) -> Self {
        Self { failures, ..self }
    }

    const fn calls(self, calls: u8) -> Self {
        Self { calls, ..self }
    }

    const fn cancels(self, cancels: u8) -> Self {
        Self { cancels, ..self }
    }

    const fn deadlines(self, deadlines: u8) -> Self {
        Self { deadlines, ..self }
    }

    const fn retries(self, retries: u8) -> Self {
        Self { retries, ..self }
    }

    const fn settlements(self, settlements: u8) -> Self {
        Self {
            settlements,
            ..self
        }
    }

    const fn silences(self, silences: u8) -> Self {
        Self { silences, ..self }
    }

    const fn retirements(self, retirements: u8) -> Self {
        Self {
            retirements,
            ..self
        }
    }
}

const fn scenario(name: &'static str, definition: &'static Definition, budget: Budget) -> Scenario {
    Scenario {
        name,
        definition,
        attempts: 2,
        batch: 1,
        late_produce: true,
        budget,
        rules: Rules::ALL,
    }
}
