//! The clock of a service: its database's, see [`saga_postgres::clock`].

use crate::http::Problem;
use chrono::{DateTime, Utc};
use saga_postgres::clock::Clock;
use uuid::Uuid;

/// A new try may succeed after an operator, warned by the log, has corrected the clocks.
const RETRY_AFTER_SECONDS: u64 = 30;

/// Returns the current time, UTC.
pub fn now() -> DateTime<Utc> {
    Clock::of_process().now()
}

/// Returns a new time-ordered id (UUIDv7).
pub fn new_id() -> Uuid {
    Clock::of_process().new_id()
}

/// Refuses new work, with a 503, while the clocks differ so much that the work could not be finished.
pub fn check_fit(clock: &Clock) -> Result<(), Problem> {
    clock.check_fit().map_err(|detail| {
        Problem::unavailable(
            format!("{detail}: nothing is begun until they agree"),
            RETRY_AFTER_SECONDS,
        )
        .with_type("clock-skew")
    })
}
