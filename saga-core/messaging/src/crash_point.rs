//! Named points at which a test lets a process die, before and after each effect.
//!
//! Compiled out, unless the feature `failpoints` is on. With it, the environment says where and when:
//! `FAILPOINTS='frame.before_commit=3*off->return'` ends the process at the fourth time that it passes there, as a power
//! cut would: nothing is flushed, dropped, or said goodbye to. The `fail` crate reads that; see its documentation for the
//! grammar.
//!
//! All points stand in one list, so that the test that walks them can tell which it has not reached.

use std::fmt;

macro_rules! crash_points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)+) => {
        /// See the module.
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
    /// Records are polled, nothing is done.
    RuleBeforeTransaction = "rule.before_transaction",
    /// The transaction is committed, nothing is sent.
    RuleBeforePublish = "rule.before_publish",
    /// What follows is acknowledged, the offsets are not stored.
    RuleBeforeDone = "rule.before_done",
    /// The offsets are stored, and perhaps not committed.
    RuleAfterDone = "rule.after_done",

    LogBeforeProduce = "log.before_produce",
    /// Handed to the client: written or not.
    LogBeforeAck = "log.before_ack",

    FrameAfterBegin = "frame.after_begin",
    FrameBeforeCommit = "frame.before_commit",
    FrameAfterCommit = "frame.after_commit",

    CallBeforeCall = "call.before_call",
    /// The outside has done it, and nobody here knows.
    CallAfterCall = "call.after_call",
    CallBeforeSettle = "call.before_settle",
    CallAfterSettle = "call.after_settle",
    /// The replies of a settlement are acknowledged, their intents open.
    CallAfterPublish = "call.after_publish",
    CallBeforeClose = "call.before_close",
    CallAfterClose = "call.after_close",

    OutboxBeforePublish = "outbox.before_publish",
    OutboxAfterPublish = "outbox.after_publish",
    OutboxBeforeRemove = "outbox.before_remove",
    OutboxAfterRemove = "outbox.after_remove",
    /// Rows that a crash left behind are claimed, nothing is sent.
    OutboxAfterClaim = "outbox.after_claim",

    EngineAfterLoad = "engine.after_load",
    EngineBeforeCommit = "engine.before_commit",
    EngineAfterCommit = "engine.after_commit",

    TimersBeforeProduce = "timers.before_produce",
    TimersAfterProduce = "timers.after_produce",

    OrderBeforeCommit = "order.before_commit",
    /// Accepted, and the client has no answer.
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
    /// Dies here, if the environment says so.
    pub fn pass(self) {
        static FROM_ENVIRONMENT: std::sync::Once = std::sync::Once::new();
        // Kept for as long as the process lives.
        FROM_ENVIRONMENT.call_once(|| std::mem::forget(fail::FailScenario::setup()));
        fail::eval(self.name(), |_| {
            tracing::error!(point = self.name(), "dying, as asked");
            std::process::abort()
        })
        .unwrap_or(())
    }
}

#[cfg(not(feature = "failpoints"))]
impl CrashPoint {
    /// Nothing, in this build.
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
