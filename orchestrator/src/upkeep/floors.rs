//! Decides how far floors may rise. A floor is a low-water mark. The decision is pure: it gets what upkeep has read,
//! and returns what upkeep has to write.
//!
//! ```text
//!   forgotten   │ kept, nothing new starts  │ sagas start and live
//!  ─────────────┴───────────────────────────┴───────────────────────▶ ids, which are times
//!             floor                    starts_from                 now
//! ```
//!
//! `starts_from` follows the clock: now − retention. The floor follows `starts_from`, but never passes a live saga, and
//! rises only once no process can still start a saga by an older `starts_from`. No saga is therefore ever live below
//! the floor. A start that is replayed after its history was dropped is refused. A participant that forgets what is
//! below the floor forgets nothing that it will be asked for.

/// The age of a database's first floor if nothing is ever forgotten: 30 days in milliseconds. History must begin
/// somewhere, and no process starts a saga that is older.
const FIRST_REACH_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// The floors, in milliseconds since the Unix epoch; 0 before the first round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// No saga that is older is started.
    pub starts_from_ms: i64,
    /// No saga that is older is live, or will be.
    pub floor_ms: i64,
}

/// The values that a round of upkeep has read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub now_ms: i64,
    /// The time at which the oldest live saga began. It is read after `settled_ms` is known.
    pub oldest_live_ms: Option<i64>,
    /// The time for which sagas are kept. `None` if nothing is ever forgotten.
    pub retention_ms: Option<i64>,
    /// A `starts_from_ms` that every process uses, or a later one.
    pub settled_ms: Option<i64>,
}

impl Floors {
    /// Returns the raised floors. Neither floor ever falls, whatever the clock does.
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
        // Before there was a first value, no process could start a saga by an older one.
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

    /// The values of a round, all in days.
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
    fn the_floor_follows_settled_sagas_and_the_start_floor_follows_the_clock() {
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
        // A live saga below the floor cannot exist. If one did, the floor would not fall below what is already
        // promised.
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
        // A start floor that was announced while there was a retention still takes effect.
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
