//! The independent checker: what a person would do who suspects that something was lost, and does not trust the code.
//!
//! It reads the four databases and every topic of the reference application with SQL and decoding of its own (it uses none
//! of the services' crates), and reports by name whatever does not add up: an order without a saga, a charge too many, a
//! reservation that outlived its saga, a gap in a saga's events. See [`Check`] for all of them.
//!
//! ```text
//!  orchestrator's offsets ─▶ saga ∪ saga_history ─▶ orders + outbox ─▶ stock ─▶ payments ─▶ topics      one look
//!                                                                                              │
//!                                              checks/ (pure) ◀────────────────────────────────┘
//!                                                 │ suspects
//!       look again; the saga has not moved ───────┴──▶ discrepancies
//! ```
//!
//! **A live system is never still**, so nothing may be reported that is merely in flight. Two things see to it. The order
//! of reading: causes before effects. A saga that is seen ended was ended before anything else was read, so its effects
//! must be there; an input below the offsets read first was handled before the sagas were read. Each database is read in
//! one snapshot, so sums within it are exact at any moment. And a second look: only what stands in both, and whose saga
//! has not moved in between, is a discrepancy.
//!
//! **Retention** is no discrepancy either: what is older than the oldest partition of a table, or than the first record
//! that a topic still has, is not missed.
//!
//! Memory grows with the sagas that are looked at, about a kilobyte each; [`Settings::since`] bounds them.

mod checks;
mod error;
mod finding;
mod journal;
mod look;
mod report;
mod sources;
mod store;
mod topics;

pub use error::AuditError;
pub use finding::{Check, Finding};
pub use journal::{Accepted, Journal, JournalEntry};
pub use look::Look;
pub use report::{Amounts, Figures, Parked, Report};
pub use sources::Sources;

use chrono::{DateTime, Utc};
use std::{collections::BTreeSet, time::Duration};

/// How to look.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only sagas that began at or after this instant.
    pub since: Option<DateTime<Utc>>,
    /// Between two looks.
    pub interval: Duration,
    /// Suspicions that still move after so many looks are let go.
    pub looks_max: u32,
    /// A saga whose next step was due so long ago stands still.
    pub overdue: Duration,
    /// Everything is expected to have ended: what is still under way is a discrepancy.
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

/// Looks at the system until every suspicion has either gone or stood still through two looks.
pub async fn audit(
    sources: &Sources,
    journal: &Journal,
    settings: &Settings,
) -> Result<Report, AuditError> {
    let mut look = Look::take(sources, settings).await?;
    let mut suspects = checks::all(&look, journal, settings);
    let mut discrepancies = Vec::new();
    let mut looks = 1;
    while !suspects.is_empty() && looks < settings.looks_max.max(2) {
        tokio::time::sleep(settings.interval).await;
        let now = Look::take(sources, settings).await?;
        let found = checks::all(&now, journal, settings);
        let (stood, moving) = compare(&look, &suspects, &now, found);
        suspects = if moving.is_empty() {
            Vec::new()
        } else {
            stood.iter().cloned().chain(moving).collect()
        };
        discrepancies = stood;
        looks += 1;
        look = now;
    }
    Ok(Report::new(looks, &look, journal, discrepancies))
}

/// What stood still through both looks, and what is to be looked at again.
fn compare(
    before: &Look,
    suspects: &[Finding],
    now: &Look,
    found: Vec<Finding>,
) -> (Vec<Finding>, Vec<Finding>) {
    let suspected: BTreeSet<_> = suspects.iter().map(Finding::identity).collect();
    found.into_iter().partition(|finding| {
        let still = finding
            .saga
            .is_none_or(|saga| before.progress(saga) == now.progress(saga));
        still && suspected.contains(&finding.identity())
    })
}
