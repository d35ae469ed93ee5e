//! How far floors may rise. Pure: what upkeep read goes in, what it is to write comes out.
//!
//! ```text
//!   forgotten   │ kept, nothing new starts  │ sagas start and live
//!  ─────────────┴───────────────────────────┴───────────────────────▶ ids, which are times
//!             floor                    starts_from                 now
//! ```
//!
//! `starts_from` follows the clock: now − retention. The floor follows `starts_from`, but never passes a live saga, and
//! only once nobody can still start one by an older `starts_from`. So no saga is ever live below the floor, a start that
//! is replayed after its history was dropped is refused, and a participant that forgets what lies below the floor
//! forgets nothing that somebody will ask for.

/// A database's first floor, where nothing is ever forgotten: history must begin somewhere, and nobody starts a saga
/// that is older.
const FIRST_REACH_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Milliseconds since the Unix epoch; 0 before the first round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// No saga that is older is started.
    pub starts_from_ms: i64,
    /// No saga that is older is live, or will be.
    pub floor_ms: i64,
}

/// What a round of upkeep has read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub now_ms: i64,
    /// When the oldest live saga began. Read after it was known what is settled.
    pub oldest_live_ms: Option<i64>,
    /// `None`: nothing is ever forgotten.
    pub retention_ms: Option<i64>,
    /// A `starts_from_ms` by which everybody goes.
    pub settled_ms: Option<i64>,
}

impl Floors {
    /// Neither ever falls, whatever the clock does.
    #[must_use]
    pub fn raised(self, seen: Seen) -> Self {
        let first = self.starts_from_ms == 0;
        let reach_ms = match seen.retention_ms {
            None if !first => None,
            None => Some(FIRST_REACH_MS),
            Some(retention_ms) => Some(retention_ms),
        };
        let starts_from_ms = reach_ms.map_or(self.starts_from_ms, |reach| {
            self.starts_from_ms.max(seen.now_ms - reach)
        });
        // Before there was a value, nothing was started by it.
        let settled_ms = if first {
            Some(starts_from_ms)
        } else {
            seen.settled_ms.map(|settled| settled.min(starts_from_ms))
        };
        let reached = settled_ms.map(|settled| {
            seen.oldest_live_ms
                .map_or(settled, |oldest| settled.min(oldest))
        });
        Self {
            starts_from_ms,
            floor_ms: reached.map_or(self.floor_ms, |reached| self.floor_ms.max(reached)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3_600 * 1_000;

    /// All in days.
    #[derive(Clone, Copy)]
    struct Round {
        stored: (i64, i64),
        now: i64,
        oldest: Option<i64>,
        retention: Option<i64>,
        settled: Option<i64>,
    }

    const QUIET: Round = Round {
        stored: (70, 70),
        now: 101,
        oldest: None,
        retention: Some(30),
        settled: Some(70),
    };

    fn check(round: Round, expected: (i64, i64)) {
        let days = |days: i64| days * DAY;
        let stored = Floors {
            starts_from_ms: days(round.stored.0),
            floor_ms: days(round.stored.1),
        };
        let raised = stored.raised(Seen {
            now_ms: days(round.now),
            oldest_live_ms: round.oldest.map(days),
            retention_ms: round.retention.map(days),
            settled_ms: round.settled.map(days),
        });
        assert_eq!(
            (raised.starts_from_ms / DAY, raised.floor_ms / DAY),
            expected
        );
    }

    #[test]
    fn a_new_database_begins_one_retention_ago() {
        let first = Round {
            stored: (0, 0),
            settled: None,
            ..QUIET
        };
        check(first, (71, 71));
        check(
            Round {
                oldest: Some(60),
                ..first
            },
            (71, 60),
        );
        check(
            Round {
                retention: None,
                ..first
            },
            (71, 71),
        );
    }

    #[test]
    fn the_floor_follows_what_is_settled_and_starts_follow_the_clock() {
        check(QUIET, (71, 70));
        check(
            Round {
                settled: Some(71),
                ..QUIET
            },
            (71, 71),
        );
        check(
            Round {
                settled: None,
                now: 105,
                ..QUIET
            },
            (75, 70),
        );
    }

    #[test]
    fn a_live_saga_holds_the_floor() {
        let settled = Round {
            settled: Some(80),
            now: 115,
            ..QUIET
        };
        check(
            Round {
                oldest: Some(75),
                ..settled
            },
            (85, 75),
        );
        check(
            Round {
                oldest: Some(90),
                ..settled
            },
            (85, 80),
        );
        // Older than the floor: cannot be, and changes nothing that is promised already.
        check(
            Round {
                oldest: Some(60),
                ..settled
            },
            (85, 70),
        );
    }

    #[test]
    fn neither_falls_when_the_clock_does_or_the_retention_grows() {
        check(Round { now: 50, ..QUIET }, (70, 70));
        check(
            Round {
                retention: Some(90),
                ..QUIET
            },
            (70, 70),
        );
    }

    #[test]
    fn a_shorter_retention_takes_effect_once_it_is_settled() {
        let shorter = Round {
            retention: Some(10),
            ..QUIET
        };
        check(shorter, (91, 70));
        check(
            Round {
                stored: (91, 70),
                settled: Some(91),
                ..shorter
            },
            (91, 91),
        );
    }

    #[test]
    fn without_retention_starts_stay_where_they_are() {
        let off = Round {
            retention: None,
            now: 500,
            ..QUIET
        };
        check(off, (70, 70));
        // What was announced when there was one still comes.
        check(
            Round {
                stored: (75, 70),
                settled: Some(75),
                ..off
            },
            (75, 75),
        );
    }
}
