//! Makes the templates' values from the API's answers.

use super::PageConfig;
use crate::http::model::{Overview, SagaPage, SagaSummary, StatusCount, WaitingCount};
use askama::Template;
use chrono::{DateTime, SecondsFormat, Utc};

/// The statuses in the order of the page: those in progress, those that need a person, those that have ended.
const STATUSES: [&str; 6] = [
    "running",
    "compensating",
    "parked",
    "completed",
    "compensated",
    "abandoned",
];
/// The first three statuses are of live sagas. The others have ended; the overview counts an hour of them.
const LIVE_STATUSES: usize = 3;

#[derive(Template)]
#[template(path = "page.html")]
pub struct Page<'a> {
    order_url: &'a str,
    inventory_url: &'a str,
    order_definitions: &'a [String],
    filters: Vec<Filter>,
    overview: OverviewFragment,
    sagas: SagasFragment,
}

struct Filter {
    /// The status to filter by; empty matches all.
    status: &'static str,
    label: &'static str,
    is_chosen: bool,
}

impl<'a> Page<'a> {
    pub fn new(
        config: &'a PageConfig,
        status: &str,
        overview: OverviewFragment,
        sagas: SagasFragment,
    ) -> Self {
        let filters = [("", "all")]
            .into_iter()
            .chain(STATUSES.map(|status| (status, status)));
        Self {
            order_url: config.order_url.trim_end_matches('/'),
            inventory_url: config.inventory_url.trim_end_matches('/'),
            order_definitions: &config.order_definitions,
            filters: filters
                .map(|(word, label)| Filter {
                    status: word,
                    label,
                    is_chosen: word == status,
                })
                .collect(),
            overview,
            sagas,
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
pub struct OverviewFragment {
    counts: Vec<Count>,
    lags: Vec<Lag>,
    /// Sentences about what holds sagas up.
    waits: Vec<String>,
    /// The reason why there are no numbers, shown instead of them.
    problem: Option<String>,
}

struct Count {
    status: &'static str,
    number: String,
    has_ended: bool,
}

struct Lag {
    topic: String,
    records: String,
    is_behind: bool,
}

impl OverviewFragment {
    pub fn of(overview: Result<Overview, String>) -> Self {
        match overview {
            Ok(overview) => Self {
                counts: counts(|status| {
                    overview
                        .live
                        .iter()
                        .chain(&overview.ended)
                        .filter(|counted| counted.status == status)
                        .map(|StatusCount { count, .. }| count)
                        .sum::<i64>()
                        .to_string()
                }),
                lags: overview
                    .lags
                    .into_iter()
                    .map(|lag| Lag {
                        topic: lag.topic,
                        records: lag
                            .records
                            .map_or_else(|| "?".to_owned(), |n| n.to_string()),
                        is_behind: lag.records.is_none_or(|records| records > 0),
                    })
                    .collect(),
                waits: overview.waiting.iter().filter_map(wait).collect(),
                problem: None,
            },
            Err(problem) => Self {
                counts: counts(|_| "–".to_owned()),
                lags: Vec::new(),
                waits: Vec::new(),
                problem: Some(problem),
            },
        }
    }
}

fn counts(of: impl Fn(&str) -> String) -> Vec<Count> {
    STATUSES
        .iter()
        .enumerate()
        .map(|(index, status)| Count {
            status,
            number: of(status),
            has_ended: index >= LIVE_STATUSES,
        })
        .collect()
}

/// Returns a sentence about a wait. A wait for a reply is normal and gets none.
fn wait(waiting: &WaitingCount) -> Option<String> {
    let who = waiting.participant.as_deref().unwrap_or("a participant");
    let (count, since) = (waiting.count, instant(waiting.longest_since));
    let (verb, needs) = if count == 1 {
        ("is", "needs")
    } else {
        ("are", "need")
    };
    match waiting.kind.as_str() {
        "queued" => Some(format!(
            "{count} {verb} not picked up by {who}, the longest since {since}"
        )),
        "backoff" => Some(format!(
            "{count} {verb} being retried at {who}, the longest since {since}"
        )),
        "resolve" => Some(format!(
            "{count} {verb} asking {who} what became of a step, the longest since {since}"
        )),
        "person" => Some(format!(
            "{count} {needs} a person, the longest since {since}"
        )),
        _ => None,
    }
}

#[derive(Template)]
#[template(path = "sagas.html")]
pub struct SagasFragment {
    sagas: Vec<Line>,
    is_filtered: bool,
    has_more: bool,
    problem: Option<String>,
}

struct Line {
    id: String,
    short_id: String,
    definition: String,
    version: u32,
    business_key: String,
    status: String,
    waiting_text: String,
    started_at: String,
}

impl SagasFragment {
    pub fn of(page: Result<SagaPage, String>, status: &str) -> Self {
        let is_filtered = !status.is_empty();
        match page {
            Ok(page) => Self {
                has_more: page.next_cursor.is_some(),
                sagas: page.sagas.into_iter().map(Line::of).collect(),
                is_filtered,
                problem: None,
            },
            Err(problem) => Self {
                sagas: Vec::new(),
                is_filtered,
                has_more: false,
                problem: Some(problem),
            },
        }
    }
}

impl Line {
    fn of(saga: SagaSummary) -> Self {
        let id = saga.id.to_string();
        Self {
            short_id: short(&id),
            id,
            definition: saga.definition,
            version: saga.definition_version,
            business_key: saga.business_key.unwrap_or_default(),
            waiting_text: match (saga.waiting_on, saga.ended_at) {
                (Some(waiting), _) => waiting.text,
                (None, Some(at)) => format!("{} at {}", saga.status, instant(at)),
                (None, None) => String::new(),
            },
            status: saga.status,
            started_at: instant(saga.started_at),
        }
    }
}

/// Returns the end of an id. Ids begin with the time, so their ends tell them apart.
fn short(id: &str) -> String {
    let tail: String = id
        .chars()
        .skip(id.chars().count().saturating_sub(8))
        .collect();
    format!("…{tail}")
}

/// Formats an instant for the script, which shows it in the reader's time zone.
fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
