//! Faults that are built in on purpose, to prove that the checks of the simulation can fail.
//!
//! Each mutant disables one rule at the place in the code where the rule is. Without the feature `mutants`, which only
//! the test crates enable, [`on`] is a constant `false`, and the compiler removes the mutants from the program.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $mutant:ident = $name:literal;)*) => {
        /// A rule that is disabled.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant { $($(#[doc = $doc])* $mutant,)* }

        impl Mutant {
            pub const ALL: &'static [Self] = &[$(Self::$mutant),*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$mutant => $name,)* }
            }
        }
    };
}

mutants! {
    /// Every action and every compensation runs, whatever the barrier says.
    SkipBarrier = "skip-barrier";
    /// A redelivered command that was handled before is not answered.
    ForgetSavedReply = "forget-saved-reply";
    /// The barrier saves an `error` as if it were final.
    SaveErrors = "save-errors";
    /// The barrier saves a failure that parks its saga.
    SaveParkingFailures = "save-parking-failures";
    /// A compensation that arrives before its action does not bar the action.
    ForgetRefusalByCompensation = "forget-refusal-by-compensation";
    /// A resolve that arrives before its action does not bar the action.
    ForgetRefusalByResolve = "forget-refusal-by-resolve";
    /// A compensation that meets an open external call answers that there is nothing to undo.
    CompensatePendingEmpty = "compensate-pending-empty";
    /// A repeated external call gets a new idempotency key.
    NewKeyForRepeat = "new-key-for-repeat";
    /// The starter does not write the barrier row of its own step.
    ForgetStarterRecord = "forget-starter-record";
    /// A participant handles commands of sagas below its own floor.
    IgnoreFloorOfCommands = "ignore-floor-of-commands";
    /// The orchestrator accepts starts below its floor.
    IgnoreFloorOfStarts = "ignore-floor-of-starts";
    /// An `error` of an older attempt ends the current attempt.
    AcceptOldErrors = "accept-old-errors";
    /// The saga starts compensating without resolving its pivot.
    CompensateUnresolved = "compensate-unresolved";
    /// A pivot whose outcome stays unknown is resolved without end.
    AskWithoutEnd = "ask-without-end";
    /// An attempt that timed out is followed by the next attempt at once.
    NoPauseAfterTimeout = "no-pause-after-timeout";
    /// A step is compensated before the steps that ran after it.
    CompensateInAnyOrder = "compensate-in-any-order";
    /// A compensation whose attempts are used up counts as done.
    GiveUpCompensations = "give-up-compensations";
    /// A command that its participant has not consumed times out.
    TimeOutQueued = "time-out-queued";
    /// A timer fires before the inputs that were in the log when it fell due are handled.
    FireTimersUnread = "fire-timers-unread";
    /// A new owner of a partition does not load the partition's timers.
    ForgetTimersOnTakeover = "forget-timers-on-takeover";
    /// Offsets are committed before the transaction.
    CommitOffsetsFirst = "commit-offsets-first";
    /// A redelivered input is handled as a duplicate.
    ForgetRedeliveries = "forget-redeliveries";
    /// A duplicate input makes the orchestrator send the commands in flight again.
    AnswerEveryStaleInput = "answer-every-stale-input";
    /// The store does not check versions, so a stale owner can write.
    DropVersionCheck = "drop-version-check";
    /// The cache of sagas survives the loss of its partitions, and the versions of unmodified sagas are not checked.
    TrustMemory = "trust-memory";
    /// A start does not check the history of ended sagas.
    ForgetHistory = "forget-history";
    /// A start uses the definition version that its process loaded first, even if the database has changed.
    TrustDefinitions = "trust-definitions";
    /// Bad records are dropped instead of dead-lettered.
    DropBadRecords = "drop-bad-records";
    /// Replies go to the partition that the key selects, not to the saga's home partition.
    ReplyByKey = "reply-by-key";
    /// The outbox row is deleted before its records are in the log.
    EmptyOutboxFirst = "empty-outbox-first";
    /// A reply is dropped if another input of the same batch has changed its saga.
    ForgetLaterInBatch = "forget-later-in-batch";
}

#[cfg(not(feature = "mutants"))]
#[inline]
pub const fn on(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::{on, switch};

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Returns true if the mutant is enabled on this thread.
    pub fn on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// Enables a mutant on this thread from now on; `None` disables all.
    pub fn switch(mutant: Option<Mutant>) {
        ON.set(mutant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_nothing_is_on_by_itself() {
        let names: HashSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(Mutant::ALL.iter().all(|mutant| !on(*mutant)));
    }
}
