//! The database's clock between two looks at it: due times are compared with the clock that they were made by.

use saga_core::ids::Timestamp;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// For so long after a look the clock is told instead of read.
pub const TOLD_FOR: Duration = Duration::from_secs(1);

/// Two of them are in a process, and must not be one. The store's is set by what the database says and tells batches that
/// have nothing to read; the timers' and the API's is set by each batch, with what that was told, too.
#[derive(Debug, Default)]
pub struct DbClock {
    last: Mutex<Option<(Timestamp, Instant)>>,
}

impl DbClock {
    /// What the database said just now.
    pub fn set(&self, now: Timestamp) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Instant::now()));
    }

    /// `None` until the database was asked once.
    pub fn now(&self) -> Option<Timestamp> {
        self.last().map(|(at, seen)| at + seen.elapsed())
    }

    /// `None` if the database was last asked longer than `age` ago.
    pub fn now_if_asked_within(&self, age: Duration) -> Option<Timestamp> {
        let (at, seen) = self.last()?;
        let since = seen.elapsed();
        (since < age).then(|| at + since)
    }

    fn last(&self) -> Option<(Timestamp, Instant)> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_told_until_it_is_to_be_read_again() {
        let clock = DbClock::default();
        assert_eq!(clock.now_if_asked_within(TOLD_FOR), None);
        let at = Timestamp::UNIX_EPOCH;
        clock.set(at);
        advance(TOLD_FOR / 2).await;
        assert_eq!(clock.now_if_asked_within(TOLD_FOR), Some(at + TOLD_FOR / 2));
        advance(TOLD_FOR / 2).await;
        assert_eq!(clock.now_if_asked_within(TOLD_FOR), None);
        assert_eq!(clock.now(), Some(at + TOLD_FOR));
    }
}
