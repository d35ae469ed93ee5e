//! Reads a live system at least twice, and reports what is suspicious in two looks and has not changed in between.

use crate::{AuditError, Finding, Journal, Look, Report, Settings, Sources, checks};
use std::collections::BTreeSet;

/// Looks at the system until each suspicion has either disappeared or is confirmed by two looks.
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
        let (confirmed, moving) = compare(&look, &suspects, &now, found);
        suspects = if moving.is_empty() {
            Vec::new()
        } else {
            confirmed.iter().cloned().chain(moving).collect()
        };
        discrepancies = confirmed;
        looks += 1;
        look = now;
    }
    Ok(Report::new(looks, &look, journal, discrepancies))
}

/// Splits the new findings into those that the previous look had, too, with the saga unchanged, and those to be looked
/// at again.
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
