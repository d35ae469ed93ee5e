//! Builds scenarios from their budgets of trouble.

use crate::{
    definition::Definition,
    rules::Rules,
    world::{Budget, Scenario},
};

/// A budget without trouble; the methods of `Budget` add some.
pub(super) const NONE: Budget = Budget {
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
    pub(super) const fn crashes(self, crashes: u8) -> Self {
        Self { crashes, ..self }
    }

    pub(super) const fn lost_answers(self, lost_answers: u8) -> Self {
        Self {
            lost_answers,
            ..self
        }
    }

    pub(super) const fn duplicates(self, duplicates: u8) -> Self {
        Self { duplicates, ..self }
    }

    pub(super) const fn rivals(self, rivals: u8) -> Self {
        Self { rivals, ..self }
    }

    pub(super) const fn errors(self, errors: u8) -> Self {
        Self { errors, ..self }
    }

    pub(super) const fn failures(self, failures: u8) -> Self {
        Self { failures, ..self }
    }

    pub(super) const fn calls(self, calls: u8) -> Self {
        Self { calls, ..self }
    }

    pub(super) const fn cancels(self, cancels: u8) -> Self {
        Self { cancels, ..self }
    }

    pub(super) const fn deadlines(self, deadlines: u8) -> Self {
        Self { deadlines, ..self }
    }

    pub(super) const fn retries(self, retries: u8) -> Self {
        Self { retries, ..self }
    }

    pub(super) const fn settlements(self, settlements: u8) -> Self {
        Self {
            settlements,
            ..self
        }
    }

    pub(super) const fn silences(self, silences: u8) -> Self {
        Self { silences, ..self }
    }

    pub(super) const fn retirements(self, retirements: u8) -> Self {
        Self {
            retirements,
            ..self
        }
    }
}

pub(super) const fn scenario(
    name: &'static str,
    definition: &'static Definition,
    budget: Budget,
) -> Scenario {
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
