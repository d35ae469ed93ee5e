//! Named points at which a test can make a process die, before and after each effect.
//!
//! They are compiled out unless the feature `failpoints` is on. With it, an environment variable selects the point and
//! the time: `FAILPOINTS='frame.before_commit=3*off->return'` ends the process when it passes that point for the fourth
//! time. The process ends as in a power failure: nothing is flushed or dropped. The crate `fail` reads the variable;
//! its documentation has the grammar.
//!
//! All points are in one list, so that the test that tries them all can tell which it has not reached.

use std::fmt;

macro_rules! crash_points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)+) => {
        /// A point at which a test can make the process die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CrashPoint {
            $($(#[$doc])* $point,)+
        }

        impl CrashPoint {
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

crash_points! {
    /// The records are polled, and nothing is done.
    RuleBeforeTransaction = "rule.before_transaction",
    /// The transaction is committed, and nothing is sent.
    RuleBeforePublish = "rule.before_publish",
    /// The outputs are acknowledged, and the offsets are not stored.
    RuleBeforeDone = "rule.before_done",
    /// The offsets are stored, but may not be committed.
    RuleAfterDone = "rule.after_done",

    LogBeforeProduce = "log.before_produce",
    /// The records are handed to the client, and may or may not be written.
    LogBeforeAck = "log.before_ack",

    FrameAfterBegin = "frame.after_begin",
    FrameBeforeCommit = "frame.before_commit",
    FrameAfterCommit = "frame.after_commit",

    CallBeforeCall = "call.before_call",
    /// The external call is done, and this process has not recorded it.
    CallAfterCall = "call.after_call",
    CallBeforeSettle = "call.before_settle",
    CallAfterSettle = "call.after_settle",
    /// The replies of a settlement are acknowledged, and their intents are open.
    CallAfterPublish = "call.after_publish",
    CallBeforeClose = "call.before_close",
    CallAfterClose = "call.after_close",

    OutboxBeforePublish = "outbox.before_publish",
    OutboxAfterPublish = "outbox.after_publish",
    OutboxBeforeRemove = "outbox.before_remove",
    OutboxAfterRemove = "outbox.after_remove",
    /// Rows that a crash left behind are claimed, and nothing is sent.
    OutboxAfterClaim = "outbox.after_claim",

    EngineAfterLoad = "engine.after_load",
    EngineBeforeCommit = "engine.before_commit",
    EngineAfterCommit = "engine.after_commit",

    TimersBeforeProduce = "timers.before_produce",
    TimersAfterProduce = "timers.after_produce",

    OrderBeforeCommit = "order.before_commit",
    /// The order is committed, and the client has no answer.
    OrderAfterCommit = "order.after_commit",
    CancelBeforeCommit = "cancel.before_commit",
    CancelAfterCommit = "cancel.after_commit",
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(feature = "failpoints")]
impl CrashPoint {
    /// Aborts the process if the environment selects this point.
    pub fn pass(self) {
        static FROM_ENVIRONMENT: std::sync::Once = std::sync::Once::new();
        // The scenario is kept until the process ends.
        FROM_ENVIRONMENT.call_once(|| std::mem::forget(fail::FailScenario::setup()));
        fail::eval(self.name(), |_| {
            tracing::error!(point = self.name(), "aborting at a crash point");
            std::process::abort()
        })
        .unwrap_or(())
    }
}

#[cfg(not(feature = "failpoints"))]
impl CrashPoint {
    /// Does nothing in this build.
    #[inline]
    pub fn pass(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = CrashPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
    }
}
