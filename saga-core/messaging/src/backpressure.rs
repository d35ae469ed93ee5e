//! Measures the lag of the orchestrator's input topic, and bounds it.
//!
//! A saga passes the topic once a step, so the lag delays it once a step: the bound is therefore a time, not a number.
//! It is converted to a number of records by the speed at which the orchestrator was seen to read while it was fully
//! busy. An orchestrator that reads nothing at all for a while is unavailable; then only the upper limit applies.
//!
//! There are two users: the intake of new sagas, which rejects them above the bound, and a participant that catches up
//! on old commands, which throttles ([`crate::participant`]) at half of that bound, so that it does not shut new sagas
//! out.

mod lag;

pub use lag::InputLag;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// With fewer records waiting, the reading speed shows how much arrives, not how much could be read.
const BUSY: u64 = 500;
/// A reader whose offsets have not moved for this long has stopped. Offsets are committed four times a second, after
/// each batch.
const STANDSTILL: Duration = Duration::from_secs(3);
/// How long a measurement counts when later ones fail.
const UNSEEN: Duration = Duration::from_secs(2);
/// The weight of the latest speed against the earlier ones.
const LATEST: f64 = 0.3;

/// Bounds of the orchestrator's input lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The lag may be as large as the number of records that the orchestrator reads in this time, once its speed was
    /// measured.
    pub patience: Duration,
    /// Records that may wait however slow the orchestrator is, because a burst is no overload.
    pub least: u64,
    /// Records that may wait until the orchestrator's speed is measured, which needs at least 500 waiting records.
    pub at_first: u64,
    /// Records that may wait however fast the orchestrator is.
    pub limit: u64,
}

/// The orchestrator's input lag and its bound. Clones share the state.
#[derive(Clone, Debug)]
pub struct Backpressure(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    waiting: AtomicU64,
    bound: AtomicU64,
    reader: Mutex<Option<Reader>>,
}

/// The orchestrator's reading, as its offsets show it.
#[derive(Clone, Copy, Debug)]
struct Reader {
    at: Instant,
    moved_at: Instant,
    read: u64,
    waiting: u64,
    /// Records read a second, under load.
    speed: Option<f64>,
}

impl Backpressure {
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            bounds,
            waiting: AtomicU64::new(0),
            bound: AtomicU64::new(bounds.at_first),
            reader: Mutex::new(None),
        }))
    }

    /// Takes a measurement: at `at`, `read` records in all had been consumed, and `waiting` had not.
    pub fn look(&self, at: Instant, read: u64, waiting: u64) {
        let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Reader::seen(*reader, at, read, waiting);
        *reader = Some(seen);
        let bound = seen.bound(self.0.bounds);
        self.0.bound.store(bound, Ordering::Relaxed);
        self.0.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Notes that the measurement at `at` failed. A single failure is ignored; after a while Kafka counts as
    /// unavailable, and the lag as unknown.
    pub fn unseen(&self, at: Instant) {
        let reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.is_some_and(|seen| at.saturating_duration_since(seen.at) < UNSEEN) {
            return;
        }
        self.0.waiting.store(0, Ordering::Relaxed);
        self.0.bound.store(self.0.bounds.limit, Ordering::Relaxed);
    }

    /// Returns `true` if one more record would exceed the bound, beside `unsent` messages that have not reached Kafka.
    pub fn is_over_limit(&self, unsent: u64) -> bool {
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        unsent.saturating_add(waiting) > self.0.bound.load(Ordering::Relaxed)
    }

    /// Returns `true` if the lag is large enough to be measured often.
    pub fn is_busy(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) >= BUSY
    }
}

impl Reader {
    fn seen(before: Option<Self>, at: Instant, read: u64, waiting: u64) -> Self {
        let Some(before) = before else {
            return Self {
                at,
                moved_at: at,
                read,
                waiting,
                speed: None,
            };
        };
        // Fewer records than before mean that the topic was recreated.
        let moved = read.saturating_sub(before.read);
        // The time runs from the last move, because offsets may be committed more rarely than they are read here.
        let took = at.saturating_duration_since(before.moved_at);
        let busy = waiting >= BUSY && before.waiting >= BUSY;
        let speed = if busy && moved > 0 && !took.is_zero() && took < STANDSTILL {
            let latest = moved as f64 / took.as_secs_f64();
            let smooth = |speed| speed + LATEST * (latest - speed);
            Some(before.speed.map_or(latest, smooth))
        } else {
            before.speed
        };
        let idle = waiting == 0;
        Self {
            at,
            moved_at: if moved > 0 || idle {
                at
            } else {
                before.moved_at
            },
            read,
            waiting,
            speed,
        }
    }

    fn bound(&self, bounds: Bounds) -> u64 {
        let Bounds {
            patience,
            least,
            at_first,
            limit,
        } = bounds;
        if self.at.saturating_duration_since(self.moved_at) >= STANDSTILL {
            return limit;
        }
        self.speed.map_or(at_first, |speed| {
            let records = (speed * patience.as_secs_f64()) as u64;
            records.max(least).min(limit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 20_000;

    struct Watched {
        pressure: Backpressure,
        began: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self::at_first(LIMIT)
        }

        fn at_first(at_first: u64) -> Self {
            Self {
                pressure: Backpressure::new(Bounds {
                    patience: Duration::from_millis(500),
                    least: 1_000,
                    at_first,
                    limit: LIMIT,
                }),
                began: Instant::now(),
            }
        }

        fn look(&self, ms: u64, read: u64, waiting: u64) -> &Backpressure {
            let at = self.began + Duration::from_millis(ms);
            self.pressure.look(at, read, waiting);
            &self.pressure
        }
    }

    #[test]
    fn the_backlog_is_bounded_by_the_rate_of_consumption() {
        let watched = Watched::new();
        assert!(
            !watched.look(0, 0, 15_000).is_over_limit(0),
            "nothing is known yet"
        );
        assert!(
            watched.look(1_000, 8_000, 4_500).is_over_limit(0),
            "4,000 may"
        );
        assert!(!watched.look(1_250, 10_000, 3_000).is_over_limit(900));
        assert!(
            watched.pressure.is_over_limit(1_001),
            "with what is not sent"
        );
    }

    #[test]
    fn until_it_is_seen_at_work_there_is_a_bound_of_its_own() {
        let watched = Watched::at_first(700);
        assert!(watched.pressure.is_over_limit(701), "nobody has looked");
        assert!(!watched.look(0, 0, 700).is_over_limit(0));
        assert!(watched.look(100, 0, 701).is_over_limit(0));
        assert!(
            !watched.look(1_000, 8_000, 3_900).is_over_limit(0),
            "4,000 may"
        );
        let unavailable = Watched::at_first(700);
        unavailable.look(0, 0, 5_000);
        assert!(
            !unavailable.look(3_000, 0, LIMIT).is_over_limit(0),
            "nobody reads"
        );
    }

    #[test]
    fn a_burst_on_an_idle_system_is_taken() {
        let watched = Watched::new();
        watched.look(0, 0, 0);
        // Little was read because little arrived.
        watched.look(1_000, 50, 0);
        assert!(!watched.look(2_000, 60, 9_000).is_over_limit(0));
    }

    #[test]
    fn the_bound_adapts_slowly_and_never_falls_below_a_burst() {
        let watched = Watched::new();
        watched.look(0, 0, 5_000);
        watched.look(1_000, 10_000, 5_000);
        watched.look(2_000, 10_100, 3_000);
        assert!(!watched.pressure.is_over_limit(0), "one slow second");
        for second in 3..30 {
            watched.look(second * 1_000, 10_000 + second * 100, 2_000);
        }
        assert!(watched.pressure.is_over_limit(0));
        assert!(!watched.look(30_000, 13_100, 999).is_over_limit(0));
    }

    #[test]
    fn a_reader_that_commits_rarely_is_not_faster_for_it() {
        let watched = Watched::new();
        watched.look(0, 0, 5_000);
        for look in 1..=40 {
            let seconds = look / 4;
            watched.look(look * 250, seconds * 6_000, 5_000);
        }
        assert!(!watched.look(10_250, 60_000, 3_000).is_over_limit(0));
        assert!(watched.pressure.is_over_limit(1), "6,000 a second");
    }

    #[test]
    fn orders_are_accepted_while_the_orchestrator_is_unavailable() {
        let watched = Watched::new();
        watched.look(0, 0, 5_000);
        watched.look(1_000, 4_000, 5_000);
        assert!(
            watched.look(2_000, 4_000, 6_000).is_over_limit(0),
            "it pauses"
        );
        assert!(
            !watched.look(4_000, 4_000, 19_000).is_over_limit(0),
            "it is away"
        );
        assert!(
            watched.look(5_000, 4_000, 20_001).is_over_limit(0),
            "the limit"
        );
        assert!(
            watched.look(6_000, 6_000, 18_000).is_over_limit(0),
            "it works its backlog off"
        );
    }

    #[test]
    fn without_kafka_only_unsent_records_count() {
        let watched = Watched::new();
        watched.look(0, 0, LIMIT + 1);
        assert!(watched.pressure.is_over_limit(0));
        let unseen = |ms| {
            let at = watched.began + Duration::from_millis(ms);
            watched.pressure.unseen(at);
        };
        unseen(1_000);
        assert!(watched.pressure.is_over_limit(0), "one question failed");
        unseen(2_000);
        assert!(!watched.pressure.is_over_limit(LIMIT));
        assert!(watched.pressure.is_over_limit(LIMIT + 1));
    }
}
