//! The database's clock between two looks at it: due times are compared with the clock that they were made by.

use saga_core::ids::Timestamp;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// Set by every transaction, read by the timers.
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
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|(at, seen)| at + seen.elapsed())
    }
}
