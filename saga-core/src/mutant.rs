//! Faults that are built in on purpose, to prove that the checks of the simulation can fail.
//!
//! Each mutant takes one rule out at the place where the rule is. Without the feature `mutants`, which only the test
//! kit sets, [`on`] is `false` for the compiler, and nothing of a mutant is left in the program.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $mutant:ident = $name:literal;)*) => {
        /// A rule that is taken out.
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
    /// A redelivered command finds its work done, and is not answered.
    ForgetSavedReply = "forget-saved-reply";
    /// The barrier keeps an `error` as if it were final.
    SaveErrors = "save-errors";
    /// The barrier keeps a failure that parks its saga.
    SaveParkingFailures = "save-parking-failures";
    /// A compensation that comes first leaves its action free to run.
    ForgetRefusalByCompensation = "forget-refusal-by-compensation";
    /// A resolve that comes first leaves its action free to run.
    ForgetRefusalByResolve = "forget-refusal-by-resolve";
    /// A compensation finds an open call, and says that there is nothing to undo.
    CompensatePendingEmpty = "compensate-pending-empty";
    /// A call that is repeated gets a key of its own.
    NewKeyForRepeat = "new-key-for-repeat";
    /// The starter does not write the barrier's record of its own step.
    ForgetStarterRecord = "forget-starter-record";
    /// Commands below a participant's own floor are handled.
    IgnoreFloorOfCommands = "ignore-floor-of-commands";
    /// Starts below the orchestrator's floor are taken.
    IgnoreFloorOfStarts = "ignore-floor-of-starts";
    /// An `error` of an older attempt ends the current one.
    AcceptOldErrors = "accept-old-errors";
    /// The saga turns round without asking what became of its pivot.
    CompensateUnresolved = "compensate-unresolved";
    /// A step is compensated before those that came after it.
    CompensateInAnyOrder = "compensate-in-any-order";
    /// A compensation that is used up counts as made.
    GiveUpCompensations = "give-up-compensations";
    /// A command that nobody has picked up times out.
    TimeOutQueued = "time-out-queued";
    /// A timer does not wait until what was in the log before it is read.
    FireTimersUnread = "fire-timers-unread";
    /// An owner that takes a partition over does not look for what is due.
    ForgetTimersOnTakeover = "forget-timers-on-takeover";
    /// Offsets are committed before the transaction.
    CommitOffsetsFirst = "commit-offsets-first";
    /// A redelivered input is taken for a duplicate.
    ForgetRedeliveries = "forget-redeliveries";
    /// A duplicate has the commands in flight sent again.
    AnswerEveryStaleInput = "answer-every-stale-input";
    /// No version holds a rival back.
    DropVersionCheck = "drop-version-check";
    /// What an owner knows of sagas outlives its partitions, and is not compared with the rows of those it leaves alone.
    TrustMemory = "trust-memory";
    /// A start does not look into history.
    ForgetHistory = "forget-history";
    /// Bad records are passed over.
    DropBadRecords = "drop-bad-records";
    /// Replies go where the key says, not to the saga's home.
    ReplyByKey = "reply-by-key";
    /// The outbox's row is gone before the log has its records.
    EmptyOutboxFirst = "empty-outbox-first";
    /// A reply is passed over if its saga has been moved in the same batch.
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

    /// Whether the mutant lives, on this thread.
    pub fn on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// From here on, on this thread.
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
