//! The database's clock, extrapolated between two readings. Due times are compared with the clock from which they were
//! computed. A process has two clocks, which must stay separate.

use saga_core::ids::Timestamp;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The time after a reading for which the store's clock is extrapolated instead of read.
pub const CLOCK_CACHE_TTL: Duration = Duration::from_secs(1);

/// The clock of the store's batches. Only readings of the database set it, so that extrapolations cannot feed on
/// themselves. It serves batches that have nothing to read.
#[derive(Debug, Default)]
pub struct StoreClock(Extrapolation);

impl StoreClock {
    pub fn set(&self, now: Timestamp) {
        self.0.set(now);
    }

    /// Returns the extrapolated time, or `None` if the database must be read again.
    pub fn now(&self) -> Option<Timestamp> {
        let (at, age) = self.0.last()?;
        (age < CLOCK_CACHE_TTL).then(|| at + age)
    }
}

/// The clock that the timers, upkeep and the API share. Every batch sets it, possibly to an extrapolated time, so it
/// must never set the [`StoreClock`].
#[derive(Debug, Default)]
pub struct SharedClock(Extrapolation);

impl SharedClock {
    pub fn set(&self, now: Timestamp) {
        self.0.set(now);
    }

    /// Returns the extrapolated time, or `None` if the database has never been read.
    pub fn now(&self) -> Option<Timestamp> {
        self.0.last().map(|(at, age)| at + age)
    }
}

#[derive(Debug, Default)]
struct Extrapolation {
    last: Mutex<Option<(Timestamp, Instant)>>,
}

impl Extrapolation {
    fn set(&self, now: Timestamp) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
    }

    /// Returns the last reading and its age.
    fn last(&self) -> Option<(Timestamp, Duration)> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|(at, read)| (at, read.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn both_clocks_are_extrapolated_and_the_stores_must_be_read_again_after_a_while() {
        let (store, shared) = (StoreClock::default(), SharedClock::default());
        assert_eq!((store.now(), shared.now()), (None, None));
        let at = Timestamp::UNIX_EPOCH;
        store.set(at);
        shared.set(at);
        advance(CLOCK_CACHE_TTL / 2).await;
        assert_eq!(store.now(), Some(at + CLOCK_CACHE_TTL / 2));
        advance(CLOCK_CACHE_TTL / 2).await;
        assert_eq!(store.now(), None);
        assert_eq!(shared.now(), Some(at + CLOCK_CACHE_TTL));
    }
}
