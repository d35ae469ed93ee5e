//! How much waits for the orchestrator in the topic of its inputs, and how much may.
//!
//! A saga passes the topic once a step, so what waits there delays it as many times over: the bound is a time, not a
//! number. How many records that is follows from what the orchestrator was seen to read while it had as much to do as it
//! could. One that reads nothing at all for a while is away: then the limit is all that bounds.
//!
//! Two ask: the intake of new sagas, which turns them away, and a participant that catches up with commands of hours ago,
//! which gives way ([`crate::participant`]) at half of that, so that it does not shut new sagas out.

mod watch;

pub use watch::InputsWatch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// With fewer records waiting, what is read tells how much arrives, not how much could be read.
const BUSY: u64 = 500;
/// A reader that has not moved for this long stands still. Offsets are committed four times a second, behind each batch.
const STANDSTILL: Duration = Duration::from_secs(3);
/// What was seen counts for as long.
const UNSEEN: Duration = Duration::from_secs(2);
/// The weight of what was read last, against what was read before.
const LATEST: f64 = 0.3;

/// How much may wait for the orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What the orchestrator reads in this time; it has to be seen at work.
    pub patience: Duration,
    /// Records that may wait however slow the orchestrator is: a burst is no overload.
    pub least: u64,
    /// Records that may wait until it has been seen at work; with fewer than 500 waiting, it is not.
    pub at_first: u64,
    /// Records that may wait however fast it is.
    pub limit: u64,
}

/// How much waits for the orchestrator, and how much may. Clones share it.
#[derive(Clone, Debug)]
pub struct Pressure(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    waiting: AtomicU64,
    bound: AtomicU64,
    reader: Mutex<Option<Reader>>,
}

/// The orchestrator, as its offsets show it.
#[derive(Clone, Copy, Debug)]
struct Reader {
    at: Instant,
    moved_at: Instant,
    read: u64,
    waiting: u64,
    /// Records a second, under load.
    speed: Option<f64>,
}

impl Pressure {
    pub fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            bounds,
            waiting: AtomicU64::new(0),
            bound: AtomicU64::new(bounds.at_first),
            reader: Mutex::new(None),
        }))
    }

    /// At `at`, `read` records in all had been consumed, and `waiting` had not.
    pub fn look(&self, at: Instant, read: u64, waiting: u64) {
        let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Reader::seen(*reader, at, read, waiting);
        *reader = Some(seen);
        let bound = seen.bound(self.0.bounds);
        self.0.bound.store(bound, Ordering::Relaxed);
        self.0.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Nothing could be seen at `at`. One question may fail; after a while Kafka is away, and nothing is known.
    pub fn unseen(&self, at: Instant) {
        let reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.is_some_and(|seen| at.saturating_duration_since(seen.at) < UNSEEN) {
            return;
        }
        self.0.waiting.store(0, Ordering::Relaxed);
        self.0.bound.store(self.0.bounds.limit, Ordering::Relaxed);
    }

    /// Whether one more would be too many, beside `unsent` messages that have not reached Kafka.
    pub fn is_high(&self, unsent: u64) -> bool {
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        unsent.saturating_add(waiting) > self.0.bound.load(Ordering::Relaxed)
    }

    /// Whether it is worth looking often.
    pub fn is_felt(&self) -> bool {
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
        // Fewer than before: the topic was made anew.
        let moved = read.saturating_sub(before.read);
        // Since it moved last: offsets may be committed more rarely than they are looked at.
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
        pressure: Pressure,
        began: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self::at_first(LIMIT)
        }

        fn at_first(at_first: u64) -> Self {
            Self {
                pressure: Pressure::new(Bounds {
                    patience: Duration::from_millis(500),
                    least: 1_000,
                    at_first,
                    limit: LIMIT,
                }),
                began: Instant::now(),
            }
        }

        fn look(&self, ms: u64, read: u64, waiting: u64) -> &Pressure {
            let at = self.began + Duration::from_millis(ms);
            self.pressure.look(at, read, waiting);
            &self.pressure
        }
    }

    #[test]
    fn what_waits_is_bounded_by_what_is_read_in_time() {
        let watched = Watched::new();
        assert!(
            !watched.look(0, 0, 15_000).is_high(0),
            "nothing is known yet"
        );
        assert!(watched.look(1_000, 8_000, 4_500).is_high(0), "4,000 may");
        assert!(!watched.look(1_250, 10_000, 3_000).is_high(900));
        assert!(watched.pressure.is_high(1_001), "with what is not sent");
    }

    #[test]
    fn until_it_is_seen_at_work_there_is_a_bound_of_its_own() {
        let watched = Watched::at_first(700);
        assert!(watched.pressure.is_high(701), "nobody has looked");
        assert!(!watched.look(0, 0, 700).is_high(0));
        assert!(watched.look(100, 0, 701).is_high(0));
        assert!(!watched.look(1_000, 8_000, 3_900).is_high(0), "4,000 may");
        let away = Watched::at_first(700);
        away.look(0, 0, 5_000);
        assert!(!away.look(3_000, 0, LIMIT).is_high(0), "nobody reads");
    }

    #[test]
    fn a_burst_on_an_idle_system_is_taken() {
        let watched = Watched::new();
        watched.look(0, 0, 0);
        // Little was read because little came.
        watched.look(1_000, 50, 0);
        assert!(!watched.look(2_000, 60, 9_000).is_high(0));
    }

    #[test]
    fn the_bound_follows_slowly_and_not_below_what_a_burst_is() {
        let watched = Watched::new();
        watched.look(0, 0, 5_000);
        watched.look(1_000, 10_000, 5_000);
        watched.look(2_000, 10_100, 3_000);
        assert!(!watched.pressure.is_high(0), "one slow second");
        for second in 3..30 {
            watched.look(second * 1_000, 10_000 + second * 100, 2_000);
        }
        assert!(watched.pressure.is_high(0));
        assert!(!watched.look(30_000, 13_100, 999).is_high(0));
    }

    #[test]
    fn a_reader_that_commits_rarely_is_not_faster_for_it() {
        let watched = Watched::new();
        watched.look(0, 0, 5_000);
        for look in 1..=40 {
            let seconds = look / 4;
            watched.look(look * 250, seconds * 6_000, 5_000);
        }
        assert!(!watched.look(10_250, 60_000, 3_000).is_high(0));
        assert!(watched.pressure.is_high(1), "6,000 a second");
    }

    #[test]
    fn orders_are_taken_while_the_orchestrator_is_away() {
        let watched = Watched::new();
        watched.look(0, 0, 5_000);
        watched.look(1_000, 4_000, 5_000);
        assert!(watched.look(2_000, 4_000, 6_000).is_high(0), "it pauses");
        assert!(!watched.look(4_000, 4_000, 19_000).is_high(0), "it is away");
        assert!(watched.look(5_000, 4_000, 20_001).is_high(0), "the limit");
        assert!(
            watched.look(6_000, 6_000, 18_000).is_high(0),
            "it works its backlog off"
        );
    }

    #[test]
    fn without_kafka_only_what_is_not_sent_counts() {
        let watched = Watched::new();
        watched.look(0, 0, LIMIT + 1);
        assert!(watched.pressure.is_high(0));
        let unseen = |ms| {
            let at = watched.began + Duration::from_millis(ms);
            watched.pressure.unseen(at);
        };
        unseen(1_000);
        assert!(watched.pressure.is_high(0), "one question failed");
        unseen(2_000);
        assert!(!watched.pressure.is_high(LIMIT));
        assert!(watched.pressure.is_high(LIMIT + 1));
    }
}
