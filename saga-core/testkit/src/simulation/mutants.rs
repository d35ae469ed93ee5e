//! Whether the checks can fail: one rule is taken out of the product's code, and seeds are run until a check finds it.
//!
//! Which mutants there are stands in [`saga_core::mutant`]; here stands which checks must find each of them. A mutant
//! that another check finds first counts as alive: either the table is wrong, or that check has come to see more.

use super::{Outcome, hunt};
use saga_core::mutant::{self, Mutant};
use std::time::Duration;

/// What became of a mutant.
#[derive(Debug)]
pub struct Fate {
    pub mutant: Mutant,
    /// Seeds that were run, the last one included.
    pub seeds: u64,
    pub elapsed: Duration,
    /// The seed in which a check found it.
    pub found: Option<(u64, Outcome)>,
}

impl Fate {
    /// The check that found it.
    pub fn check(&self) -> Option<&'static str> {
        let (_, outcome) = self.found.as_ref()?;
        outcome.violation.as_ref().map(|violation| violation.check)
    }

    /// Found, and by a check whose business it is.
    pub fn is_killed(&self) -> bool {
        self.check()
            .is_some_and(|check| killers(self.mutant).contains(&check))
    }
}

/// Runs seeds from the first one on until a check finds the mutant, or `budget` is spent. Each thread hunts its own.
pub fn try_to_kill(mutant: Mutant, budget: Duration) -> Fate {
    mutant::switch(Some(mutant));
    let hunt = hunt(1..u64::MAX, budget);
    mutant::switch(None);
    Fate {
        mutant,
        seeds: hunt.seeds,
        elapsed: hunt.elapsed,
        found: hunt.found,
    }
}

/// The checks that may find a mutant; which of them does is the seed's business.
pub fn killers(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        // A call that is opened again and again never rests.
        Mutant::SkipBarrier => &[
            "effects_exactly_once",
            "no_effect_after_compensation",
            "comes_to_rest",
            "every_saga_ends",
        ],
        Mutant::ForgetSavedReply => &["nothing_needless", "every_saga_ends"],
        Mutant::SaveErrors | Mutant::SaveParkingFailures => &["every_saga_ends"],
        Mutant::ForgetRefusalByCompensation => &[
            "no_effect_after_compensation",
            "effects_exactly_once",
            "replay_fixpoint",
            "copies_breed_nothing",
        ],
        Mutant::ForgetRefusalByResolve => {
            &["pivot_decides", "effects_exactly_once", "replay_fixpoint"]
        }
        // Its action is not refused either, should the call come to nothing.
        Mutant::CompensatePendingEmpty => &["effects_exactly_once", "replay_fixpoint"],
        Mutant::NewKeyForRepeat | Mutant::ForgetStarterRecord | Mutant::GiveUpCompensations => {
            &["effects_exactly_once"]
        }
        // Below the floor there is no partition: its batch can never be written.
        Mutant::IgnoreFloorOfCommands => &["forgetting_is_safe", "comes_to_rest"],
        Mutant::IgnoreFloorOfStarts => &["forgetting_is_safe", "bad_records_are_kept"],
        // A pivot that nobody has asked for, and so nobody has refused, may still run.
        Mutant::CompensateUnresolved => &["pivot_decides", "replay_fixpoint"],
        Mutant::CompensateInAnyOrder => &["compensations_run_backwards"],
        Mutant::AcceptOldErrors => &["errors_end_their_own_attempt"],
        Mutant::TimeOutQueued => &["nothing_needless", "only_sent_commands_are_timed"],
        Mutant::FireTimersUnread => &["only_sent_commands_are_timed"],
        Mutant::ForgetTimersOnTakeover => &["armed_timer"],
        Mutant::CommitOffsetsFirst => &[
            "pending_order_has_saga",
            "every_saga_ends",
            "bad_records_are_kept",
        ],
        Mutant::ForgetRedeliveries => &[
            "every_saga_ends",
            "nothing_needless",
            "events_are_gapless",
            "only_sent_commands_are_timed",
        ],
        Mutant::AnswerEveryStaleInput => &["bounded_amplification"],
        Mutant::DropVersionCheck => &["one_advance_per_version"],
        // The input that its saga waits for is passed over, or a timer is given to a command of an older state.
        Mutant::TrustMemory => &[
            "only_sent_commands_are_timed",
            "replay_fixpoint",
            "every_saga_ends",
            "nothing_needless",
        ],
        Mutant::ForgetHistory => &["live_and_history_are_disjoint", "one_advance_per_version"],
        Mutant::DropBadRecords => &["bad_records_are_kept"],
        Mutant::ReplyByKey => &["inputs_come_home"],
        Mutant::EmptyOutboxFirst => &["pending_order_has_saga", "accepted_is_never_lost"],
        Mutant::ForgetLaterInBatch => &["batching_changes_nothing", "every_saga_ends"],
    }
}
