//! The rules of the protocol as switches. All on is the protocol as built; each one off must break a promise.

/// A rule that can be knocked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A redelivered input has its events and the commands now in flight sent again.
    SendAgain,
    /// An input that does not apply and is no redelivery yields nothing.
    DuplicatesYieldNothing,
    /// Offsets are committed behind the transaction and behind what follows from it.
    OffsetsLast,
    /// A transaction that finds another version than it has read writes nothing.
    Version,
    /// What a start finds in history it takes out of the live table again.
    HistoryAfterLive,
    /// The pivot's outcome is asked for before anything is compensated.
    ResolveFirst,
    /// A step that may have run is resolved before a person completes or skips it.
    ResolveBeforeSettling,
    /// A step is compensated when its descendants are.
    DescendantsFirst,
    /// An `error` only counts while its own attempt is in flight.
    ErrorOfOwnAttempt,
    /// Timers stand in the log behind the replies that were there first.
    TimersAreMessages,
    /// No timer while the owner has not read what was in the log when it came due.
    ReadFirst,
    /// A command that was not picked up does not time out.
    QueuedWaits,
    /// A used-up compensation or retriable step parks, it is not taken for done.
    UsedUpParks,
    /// The starter writes the barrier's record of its own step.
    StarterRecord,
    /// The barrier finds what was done before.
    Dedupe,
    /// The barrier answers with the reply that it saved.
    SavedReply,
    /// A compensation that comes first refuses its action for ever.
    RefusedByCompensation,
    /// A resolve that comes first refuses its action for ever.
    RefusedByResolve,
    /// An `error` leaves the barrier as it was.
    ErrorUnsaved,
    /// A failure that parks leaves the barrier as it was.
    ParkingFailureUnsaved,
    /// A compensation of an open call waits for its settlement.
    PendingWaits,
    /// An external call is repeated with the key that it had.
    SameKey,
    /// A start below the floor is refused.
    FloorOfStarts,
    /// A command below the participant's own floor has no effect.
    FloorOfCommands,
    /// No floor passes a saga that is alive.
    FloorBelowLive,
}

impl Rule {
    pub const ALL: [Self; 25] = [
        Self::SendAgain,
        Self::DuplicatesYieldNothing,
        Self::OffsetsLast,
        Self::Version,
        Self::HistoryAfterLive,
        Self::ResolveFirst,
        Self::ResolveBeforeSettling,
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

/// Which rules are in force.
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
