//! The rules of the protocol as switches. With all rules on, this is the protocol as built; each rule off must break a
//! promise.

/// A rule that can be knocked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A redelivered input sends its events and the commands that are now in flight again.
    SendAgain,
    /// An input that does not apply and is no redelivery sends nothing.
    DuplicatesYieldNothing,
    /// Offsets are committed after the transaction and after its outputs are sent.
    OffsetsLast,
    /// A transaction that finds another version than it has read writes nothing.
    Version,
    /// A start checks history after it has inserted its live row, and is undone if history has the saga.
    HistoryAfterLive,
    /// The pivot's outcome is asked for before anything is compensated.
    ResolveFirst,
    /// A step that may have run is resolved before a person completes or skips it.
    ResolveBeforeSettling,
    /// A resolve without an answer is used up in the end.
    AskingEnds,
    /// A step is compensated after its descendants.
    DescendantsFirst,
    /// An `error` only counts while its own attempt is in flight.
    ErrorOfOwnAttempt,
    /// Timers are in the log, behind the replies that were there first.
    TimersAreMessages,
    /// A timer does not fire while the owner has not read what was in the log when it came due.
    ReadFirst,
    /// A command that was not picked up does not time out.
    QueuedWaits,
    /// A used-up compensation or retriable step parks the saga; it does not count as done.
    UsedUpParks,
    /// The starter writes the barrier's record of its own step.
    StarterRecord,
    /// The barrier finds commands that were handled before.
    Dedupe,
    /// The barrier answers with the reply that it saved.
    SavedReply,
    /// A compensation that arrives before its action refuses the action for ever.
    RefusedByCompensation,
    /// A resolve that arrives before its action refuses the action for ever.
    RefusedByResolve,
    /// An `error` does not change the barrier.
    ErrorUnsaved,
    /// A failure that parks does not change the barrier.
    ParkingFailureUnsaved,
    /// A compensation of an open call waits for its settlement.
    PendingWaits,
    /// An external call is repeated with the same key.
    SameKey,
    /// A start below the floor is refused.
    FloorOfStarts,
    /// A command below the participant's own floor has no effect.
    FloorOfCommands,
    /// No floor rises above a live saga.
    FloorBelowLive,
}

impl Rule {
    pub const ALL: [Self; 26] = [
        Self::SendAgain,
        Self::DuplicatesYieldNothing,
        Self::OffsetsLast,
        Self::Version,
        Self::HistoryAfterLive,
        Self::ResolveFirst,
        Self::ResolveBeforeSettling,
        Self::AskingEnds,
        Self::DescendantsFirst,
        Self::ErrorOfOwnAttempt,
        Self::TimersAreMessages,
        Self::ReadFirst,
        Self::QueuedWaits,
        Self::UsedUpParks,
        Self::StarterRecord,
        Self::Dedupe,
        Self::SavedReply,
        Self::RefusedByCompensation,
        Self::RefusedByResolve,
        Self::ErrorUnsaved,
        Self::ParkingFailureUnsaved,
        Self::PendingWaits,
        Self::SameKey,
        Self::FloorOfStarts,
        Self::FloorOfCommands,
        Self::FloorBelowLive,
    ];
}

/// The set of rules in force.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    without: Option<Rule>,
}

impl Rules {
    pub const ALL: Self = Self { without: None };

    pub fn without(rule: Rule) -> Self {
        Self {
            without: Some(rule),
        }
    }

    pub fn on(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
