//! Tests the checks: one rule is removed from the product's code, and seeds are run until a check finds the fault.
//!
//! [`saga_core::mutant`] lists the mutants; this module lists the checks that must find each of them. A mutant that
//! another check finds first counts as alive: either the table is wrong, or that check now detects more.

use super::{Outcome, hunt};
use saga_core::mutant::{self, Mutant};
use std::time::Duration;

/// The result of a hunt for a mutant.
#[derive(Debug)]
pub struct Fate {
    pub mutant: Mutant,
    /// Number of seeds that were run, including the last.
    pub seeds: u64,
    pub elapsed: Duration,
    /// The seed in which a check found the mutant, with the run's outcome.
    pub found: Option<(u64, Outcome)>,
}

impl Fate {
    /// Returns the check that found the mutant.
    pub fn check(&self) -> Option<&'static str> {
        let (_, outcome) = self.found.as_ref()?;
        outcome.violation.as_ref().map(|violation| violation.check)
    }

    /// Returns true if one of the mutant's own checks found it.
    pub fn is_killed(&self) -> bool {
        self.check()
            .is_some_and(|check| killers(self.mutant).contains(&check))
    }
}

/// Runs seeds, beginning with 1, until a check finds the mutant, or `budget` is spent. Each thread can hunt a mutant of
/// its own.
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

/// Returns the checks that may find a mutant. The seed decides which of them finds it first.
pub fn killers(mutant: Mutant) -> &'static [&'static str] {
    match mutant {
        // A call that is opened again and again prevents the system from coming to rest.
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
        // Behind the forgetting everything is read once more, as for the fixpoint, with sagas that started later.
        Mutant::ForgetRefusalByResolve => &[
            "pivot_decides",
            "effects_exactly_once",
            "replay_fixpoint",
            "forgetting_is_safe",
        ],
        // The forward action of the call is not refused either, if the call fails.
        Mutant::CompensatePendingEmpty => &["effects_exactly_once", "replay_fixpoint"],
        Mutant::NewKeyForRepeat | Mutant::ForgetStarterRecord | Mutant::GiveUpCompensations => {
            &["effects_exactly_once"]
        }
        // Below the floor there is no partition, so the batch can never be written.
        Mutant::IgnoreFloorOfCommands => &["forgetting_is_safe", "comes_to_rest"],
        Mutant::IgnoreFloorOfStarts => &["forgetting_is_safe", "bad_records_are_kept"],
        // The pivot was not asked for, and so not refused, and may still run.
        Mutant::CompensateUnresolved => &["pivot_decides", "replay_fixpoint", "forgetting_is_safe"],
        Mutant::AskWithoutEnd => &["asking_ends", "every_saga_ends"],
        Mutant::NoPauseAfterTimeout => &["pauses_after_timeouts"],
        Mutant::CompensateInAnyOrder => &["compensations_run_backwards"],
        Mutant::AcceptOldErrors => &["errors_end_their_own_attempt"],
        Mutant::TimeOutQueued => &["nothing_needless", "only_sent_commands_are_timed"],
        Mutant::FireTimersUnread => &["only_sent_commands_are_timed"],
        Mutant::ForgetTimersOnTakeover => &["armed_timer"],
        // An input that is not read again also leaves its events unsent.
        Mutant::CommitOffsetsFirst => &[
            "pending_order_has_saga",
            "every_saga_ends",
            "bad_records_are_kept",
            "events_are_gapless",
        ],
        Mutant::ForgetRedeliveries => &[
            "every_saga_ends",
            "nothing_needless",
            "events_are_gapless",
            "only_sent_commands_are_timed",
        ],
        Mutant::AnswerEveryStaleInput => &["bounded_amplification"],
        Mutant::DropVersionCheck => &["one_advance_per_version"],
        // An input that the saga waits for is skipped, or a timer is set for a command of an older state.
        Mutant::TrustMemory => &[
            "only_sent_commands_are_timed",
            "replay_fixpoint",
            "every_saga_ends",
            "nothing_needless",
            "events_are_gapless",
        ],
        Mutant::ForgetHistory => &["live_and_history_are_disjoint", "one_advance_per_version"],
        Mutant::TrustDefinitions => &["new_sagas_take_what_runs"],
        Mutant::DropBadRecords => &["bad_records_are_kept"],
        Mutant::ReplyByKey => &["inputs_come_home"],
        Mutant::EmptyOutboxFirst => &["pending_order_has_saga", "accepted_is_never_lost"],
        Mutant::ForgetLaterInBatch => &["batching_changes_nothing", "every_saga_ends"],
    }
}
