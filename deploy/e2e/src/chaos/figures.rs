//! The figures of a run, printed as a table and written as JSON.

use super::observe::Standstill;
use saga_audit::Report;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    time::Duration,
};
use uuid::Uuid;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    pub seed: u64,
    /// The command that repeats this run.
    pub command: String,
    pub minutes: f64,
    /// The number of injected faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// The faults that could not be injected as planned.
    pub faults_failed: Vec<String>,
    pub requests: Requests,
    /// The number of orders in the database by status.
    pub orders: BTreeMap<String, u64>,
    /// The ends of each kind of order, with their number.
    #[serde(rename = "wishes")]
    pub kinds: BTreeMap<String, BTreeMap<String, u64>>,
    /// Orders that were cancelled although only faults affected them, or confirmed although they could not be
    /// fulfilled.
    pub needless: Vec<Needless>,
    /// Answers that contradict each other or make no sense.
    pub contradictions: Vec<String>,
    /// The number of completed audits of the live system between the faults.
    pub live_audits: u64,
    /// The number of these audits that failed because a database or the broker was unavailable.
    pub live_audits_away: u64,
    pub live_discrepancies: Vec<String>,
    pub standstill: Standstill,
    pub takeovers: Takeovers,
    /// The time from the end of the last fault to the end of the last saga. `None` if a saga or an order did not end.
    pub drained_after_ms: Option<u64>,
    /// False if a client's request was never answered clearly.
    pub clients_settled: bool,
    /// The number of times that each process exited without having been stopped, and was started again.
    pub ended_by_themselves: BTreeMap<String, u64>,
    pub audit: Report,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    pub sent: u64,
    pub accepted: u64,
    pub unclear: u64,
    pub asked_again: u64,
    pub cancels: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Needless {
    pub order: Uuid,
    #[serde(rename = "wish")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Takeovers {
    pub count: usize,
    pub p50_ms: u64,
    pub max_ms: u64,
    /// The consumer settings that takeover times depend on.
    pub settings: String,
}

/// The promised upper limit of a takeover.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
/// The values of `session.timeout.ms` and `heartbeat.interval.ms` of every consumer.
const TAKEOVER_SETTINGS: &str = "session.timeout.ms 6000, heartbeat.interval.ms 1500";

impl Takeovers {
    pub fn of(mut times_ms: Vec<u64>) -> Self {
        times_ms.sort_unstable();
        Self {
            count: times_ms.len(),
            p50_ms: times_ms
                .get(times_ms.len() / 2)
                .copied()
                .unwrap_or_default(),
            max_ms: times_ms.last().copied().unwrap_or_default(),
            settings: TAKEOVER_SETTINGS.to_owned(),
        }
    }
}

impl Figures {
    /// Returns the promises that were not kept.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |wrong: bool, what: String| {
            if wrong {
                broken.push(what);
            }
        };
        let violations = self.audit.discrepancies.len();
        check(violations > 0, format!("{violations} violations"));
        let needless = self.needless.len();
        check(needless > 0, format!("{needless} needless compensations"));
        let contradictions = self.contradictions.len();
        check(
            contradictions > 0,
            format!("{contradictions} contradicting answers"),
        );
        let live = self.live_discrepancies.len();
        check(live > 0, format!("{live} discrepancies seen live"));
        let parked = self.audit.parked.len();
        check(parked > 0, format!("{parked} sagas parked"));
        check(
            self.drained_after_ms.is_none(),
            "something did not end".to_owned(),
        );
        check(
            !self.clients_settled,
            "a client was never answered".to_owned(),
        );
        let limit_ms = TAKEOVER_LIMIT.as_millis() as u64;
        check(
            self.takeovers.max_ms > limit_ms,
            format!("a takeover took {} ms", self.takeovers.max_ms),
        );
        broken
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.faults.values().sum();
        writeln!(f, "{}", self.command)?;
        line(
            f,
            "faults injected",
            format!("{total}: {}", counts(&self.faults)),
        )?;
        line(f, "  not as planned", self.faults_failed.len())?;
        let requests = &self.requests;
        line(
            f,
            "requests",
            format!(
                "{} sent, {} unclear, {} asked again",
                requests.sent, requests.unclear, requests.asked_again
            ),
        )?;
        line(f, "orders accepted", requests.accepted)?;
        line(f, "  cancels asked for", requests.cancels)?;
        line(f, "orders ended", counts(&self.orders))?;
        for (kind, ends) in &self.kinds {
            line(f, &format!("  {kind}"), counts(ends))?;
        }
        line(f, "sagas parked", self.audit.parked.len())?;
        line(f, "violations", self.audit.discrepancies.len())?;
        line(f, "needless compensations", self.needless.len())?;
        line(f, "contradicting answers", self.contradictions.len())?;
        line(
            f,
            "audits while live",
            format!(
                "{}, {} discrepancies; {} found a database or the broker unavailable",
                self.live_audits,
                self.live_discrepancies.len(),
                self.live_audits_away
            ),
        )?;
        let still = &self.standstill;
        line(
            f,
            "longest standstill",
            format!("{} ms, waiting on {}", still.ms, still.waiting_kind),
        )?;
        let takeovers = &self.takeovers;
        line(
            f,
            "takeovers",
            format!(
                "{}, p50 {} ms, max {} ms ({})",
                takeovers.count, takeovers.p50_ms, takeovers.max_ms, takeovers.settings
            ),
        )?;
        let drained = self.drained_after_ms.map_or_else(
            || "never".to_owned(),
            |ms| format!("{ms} ms after the last fault"),
        );
        line(f, "everything ended", drained)?;
        line(f, "exits of their own", counts(&self.ended_by_themselves))?;
        details(self, f)?;
        writeln!(f, "{}", self.audit)
    }
}

fn details(figures: &Figures, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for needless in &figures.needless {
        writeln!(
            f,
            "  needless {} ({}): {} {}",
            needless.order,
            needless.kind,
            needless.status,
            needless.reason.as_deref().unwrap_or_default()
        )?;
    }
    for text in figures
        .contradictions
        .iter()
        .chain(&figures.live_discrepancies)
    {
        writeln!(f, "  {text}")?;
    }
    for text in &figures.faults_failed {
        writeln!(f, "  fault not as planned: {text}")?;
    }
    Ok(())
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "{name:<30} {value}")
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if parts.is_empty() {
        return "none".to_owned();
    }
    parts.join(", ")
}
