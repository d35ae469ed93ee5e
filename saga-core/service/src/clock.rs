//! The one place where the wall clock and randomness are read.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Now, UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn now() -> DateTime<Utc> {
    DateTime::from(std::time::SystemTime::now())
}

/// A new time-ordered id (UUIDv7).
#[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
