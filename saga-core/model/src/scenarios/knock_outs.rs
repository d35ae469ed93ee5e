//! The table of knock-outs: for each rule, the property that breaks without it and the trouble that is needed to show
//! that.

use super::budget::{NONE, scenario};
use crate::{
    definition::{Definition, NO_PIVOT, ORDER},
    properties::name,
    rules::{Rule, Rules},
    world::{Budget, Scenario},
};

/// A rule that is knocked out, the trouble that shows its purpose, and the property that breaks without it.
#[derive(Clone, Copy, Debug)]
pub struct KnockOut {
    pub rule: Rule,
    /// The trouble in words.
    pub needs: &'static str,
    pub breaks: &'static str,
    pub scenario: Scenario,
}

fn without(
    rule: Rule,
    definition: &'static Definition,
    budget: Budget,
    needs: &'static str,
    breaks: &'static str,
) -> KnockOut {
    KnockOut {
        rule,
        needs,
        breaks,
        scenario: Scenario {
            rules: Rules::without(rule),
            ..scenario("knock-out", definition, budget)
        },
    }
}

impl KnockOut {
    /// Sets the policy to one attempt, so that less trouble is needed to use it up.
    fn in_one_attempt(mut self) -> Self {
        self.scenario.attempts = 1;
        self
    }
}

/// Returns the knock-outs of all rules.
pub fn knock_outs() -> Vec<KnockOut> {
    let mut all = of_the_log();
    all.extend(of_timers());
    all.extend(of_the_decisions());
    all.extend(of_the_barrier());
    all.extend(of_what_is_saved());
    all.extend(of_retention());
    all
}

fn of_the_log() -> Vec<KnockOut> {
    let crash = "a crash that loses what was sent";
    vec![
        without(
            Rule::SendAgain,
            &ORDER,
            NONE.crashes(1),
            crash,
            name::COMMAND_KEPT,
        ),
        without(
            Rule::SendAgain,
            &ORDER,
            NONE.crashes(1),
            crash,
            name::EVENTS_TOLD,
        ),
        without(
            Rule::DuplicatesYieldNothing,
            &ORDER,
            NONE.duplicates(1),
            "a duplicate",
            name::BREEDS_NOT,
        ),
        without(
            Rule::OffsetsLast,
            &ORDER,
            NONE.crashes(1),
            "a crash between the offsets and the transaction",
            name::NOT_STUCK,
        ),
        without(
            Rule::Version,
            &ORDER,
            NONE.rivals(1).cancels(1),
            "a rival",
            name::NO_LOST_UPDATE,
        ),
        without(
            Rule::HistoryAfterLive,
            &NO_PIVOT,
            NONE.rivals(1).duplicates(1),
            "a rival's start, and a duplicate of it",
            name::ONE_PLACE,
        ),
    ]
}

fn of_timers() -> Vec<KnockOut> {
    vec![
        without(
            Rule::TimersAreMessages,
            &ORDER,
            NONE,
            "nothing",
            name::NEEDED,
        )
        .in_one_attempt(),
        without(
            Rule::ReadFirst,
            &ORDER,
            NONE.crashes(1),
            "a crash that loses what was sent",
            name::NEEDED,
        )
        .in_one_attempt(),
        without(
            Rule::QueuedWaits,
            &ORDER,
            NONE,
            "nothing but a slow participant",
            name::NEEDED,
        )
        .in_one_attempt(),
    ]
}

fn of_the_decisions() -> Vec<KnockOut> {
    vec![
        without(
            Rule::ResolveFirst,
            &ORDER,
            NONE.cancels(1),
            "a cancel",
            name::PIVOT_STANDS,
        ),
        without(
            Rule::ResolveBeforeSettling,
            &ORDER,
            NONE.settlements(1),
            "a person who completes or skips a step",
            name::ALL_DONE,
        ),
        without(
            Rule::AskingEnds,
            &ORDER,
            NONE.silences(1),
            "an unresolved pivot",
            name::AT_REST,
        ),
        without(
            Rule::DescendantsFirst,
            &ORDER,
            NONE.cancels(1),
            "a cancel",
            name::BACKWARDS,
        ),
        without(
            Rule::ErrorOfOwnAttempt,
            &ORDER,
            NONE.errors(1).duplicates(1),
            "one error, and a duplicate of it",
            name::NEEDED,
        ),
        without(
            Rule::UsedUpParks,
            &ORDER,
            NONE.cancels(1).errors(1),
            "a cancel, and errors of a compensation",
            name::ALL_UNDONE,
        )
        .in_one_attempt(),
        without(
            Rule::UsedUpParks,
            &ORDER,
            NONE.errors(1),
            "errors of a retriable step",
            name::ALL_DONE,
        )
        .in_one_attempt(),
    ]
}

fn of_the_barrier() -> Vec<KnockOut> {
    let late = "an error, a duplicate of its command, a cancel";
    let unsaved = NONE.errors(1).duplicates(1).cancels(1);
    vec![
        without(
            Rule::StarterRecord,
            &ORDER,
            NONE.cancels(1),
            "a cancel",
            name::ALL_UNDONE,
        ),
        without(
            Rule::Dedupe,
            &ORDER,
            NONE.duplicates(1),
            "a duplicate",
            name::ONCE,
        ),
        without(
            Rule::RefusedByCompensation,
            &ORDER,
            unsaved,
            late,
            name::NO_LATE_EFFECT,
        ),
        without(
            Rule::RefusedByResolve,
            &ORDER,
            unsaved,
            late,
            name::PIVOT_STANDS,
        ),
        without(
            Rule::PendingWaits,
            &ORDER,
            NONE.calls(1).cancels(1),
            "a call to the outside, and a cancel",
            name::NO_LATE_EFFECT,
        ),
        without(
            Rule::SameKey,
            &ORDER,
            NONE.calls(1).crashes(1),
            "a call to the outside, and a crash behind it",
            name::ONCE,
        ),
    ]
}

fn of_what_is_saved() -> Vec<KnockOut> {
    vec![
        without(
            Rule::SavedReply,
            &ORDER,
            NONE.crashes(1),
            "a participant's crash",
            name::NEEDED,
        ),
        without(
            Rule::ErrorUnsaved,
            &ORDER,
            NONE.errors(1),
            "one error",
            name::NEEDED,
        ),
        without(
            Rule::ParkingFailureUnsaved,
            &ORDER,
            NONE.failures(1),
            "a failure of a retriable step",
            name::RETRY_RUNS,
        ),
    ]
}

fn of_retention() -> Vec<KnockOut> {
    vec![
        without(
            Rule::FloorOfStarts,
            &NO_PIVOT,
            NONE.retirements(1).duplicates(1),
            "retention, and a duplicate of the start",
            name::NEEDED,
        ),
        without(
            Rule::FloorOfCommands,
            &NO_PIVOT,
            NONE.retirements(1).duplicates(1),
            "retention, and a duplicate of a command",
            name::ONCE,
        ),
        without(
            Rule::FloorBelowLive,
            &NO_PIVOT,
            NONE.retirements(1),
            "retention",
            name::NEEDED,
        ),
    ]
}
