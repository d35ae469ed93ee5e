//! Settings of the audit.

use chrono::{DateTime, Utc};
use std::time::Duration;

/// Settings of an audit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// If set, only sagas that began at or after this instant are audited.
    pub since: Option<DateTime<Utc>>,
    /// Time between two looks.
    pub interval: Duration,
    /// The most looks. Suspicions whose sagas still change after them are dropped.
    pub looks_max: u32,
    /// A saga counts as stalled if its next step is overdue by this time.
    pub overdue: Duration,
    /// All sagas are expected to have ended: a live saga is a discrepancy.
    pub drained: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            since: None,
            interval: Duration::from_secs(2),
            looks_max: 5,
            overdue: Duration::from_mins(2),
            drained: false,
        }
    }
}
