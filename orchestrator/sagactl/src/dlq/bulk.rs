//! Replays or discards many letters. All letters are listed before the first is changed: a replayed record that is
//! refused again becomes a new letter, and a list that includes such letters would never end.

use super::{
    request::{Query, Request, Selection, path},
    view::{DecisionAnswer, LetterPage},
};
use crate::{
    failure::Failure,
    output::table,
    session::{Conclusion, Session},
};
use reqwest::header::HeaderMap;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

const PAGE: usize = 200;
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// The most refusals that are printed with their reasons. Further ones are only counted.
const TOLD_REFUSALS: usize = 50;

#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Replay,
    Discard,
}

impl Deed {
    pub fn path(self) -> &'static str {
        match self {
            Self::Replay => "/replay",
            Self::Discard => "/discard",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Replay => "replaying",
            Self::Discard => "discarding",
        }
    }
}

pub struct Bulk<'a> {
    pub session: &'a Session,
    pub deed: Deed,
    pub request: Request,
}

/// Counts of the outcomes.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    letters: usize,
    /// Number of letters by the orchestrator's outcome: `replayed`, `already_replayed`, …
    outcomes: BTreeMap<String, usize>,
    refused: usize,
    refusals: Vec<Refused>,
}

#[derive(Clone, Debug, Serialize)]
struct Refused {
    id: String,
    detail: String,
}

impl Bulk<'_> {
    pub async fn run(self, selection: &Selection) -> Result<Conclusion, Failure> {
        let ids = self.find(selection).await?;
        let mut report = Report {
            dry_run: self.request.dry_run,
            letters: ids.len(),
            ..Report::default()
        };
        let mut told = Instant::now();
        for (done, id) in ids.iter().enumerate() {
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let text = format!("{} {done} of {}", self.deed.verb(), ids.len());
                self.session.output.note(&text);
            }
            report.take(id, self.one(id).await)?;
        }
        self.session.output.show(&report);
        Ok(if report.refused > 0 {
            Conclusion::Negative
        } else {
            Conclusion::Good
        })
    }

    async fn find(&self, selection: &Selection) -> Result<Vec<String>, Failure> {
        let mut ids = Vec::new();
        let mut cursor = None;
        let mut told = Instant::now();
        loop {
            let query = Query {
                topic: selection.topic.as_deref(),
                reason: selection.reason.as_deref(),
                saga: selection.saga,
                all: false,
                cursor,
                limit: PAGE,
            };
            let page: LetterPage = self
                .session
                .client
                .get_with("/dead-letters", &query)
                .await?;
            ids.extend(page.letters.iter().map(|letter| letter.id.clone()));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                self.session
                    .output
                    .note(&format!("found {} letters", ids.len()));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(ids);
            }
        }
    }

    async fn one(&self, id: &str) -> Result<DecisionAnswer, Failure> {
        let path = path(id, self.deed.path())?;
        self.session
            .client
            .post(&path, HeaderMap::new(), &self.request)
            .await
    }
}

impl Report {
    /// Adds the outcome of one letter. A refusal is counted; any other failure ends the command.
    fn take(&mut self, id: &str, answer: Result<DecisionAnswer, Failure>) -> Result<(), Failure> {
        match answer {
            Ok(answer) => *self.outcomes.entry(answer.outcome).or_default() += 1,
            Err(failure) if failure.exit_status() == crate::failure::NEGATIVE => {
                self.refused += 1;
                if self.refusals.len() < TOLD_REFUSALS {
                    self.refusals.push(Refused {
                        id: id.to_owned(),
                        detail: failure.problem().detail,
                    });
                }
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.letters == 0 {
            return writeln!(f, "no such letter");
        }
        let mut rows: Vec<Vec<String>> = self
            .outcomes
            .iter()
            .map(|(outcome, count)| vec![outcome.replace('_', " "), count.to_string()])
            .collect();
        if self.refused > 0 {
            rows.push(vec!["refused".to_owned(), self.refused.to_string()]);
        }
        table(f, &rows)?;
        for refused in &self.refusals {
            writeln!(f, "{}: {}", refused.id, refused.detail)?;
        }
        let untold = self.refused - self.refusals.len();
        if untold > 0 {
            writeln!(f, "and {untold} more")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Problem;

    fn problem(status: u16) -> Failure {
        Failure::Answered(Box::new(Problem {
            status,
            detail: "no".to_owned(),
            ..Problem::default()
        }))
    }

    fn answer(outcome: &str) -> DecisionAnswer {
        serde_json::from_value(serde_json::json!({"id": "a", "outcome": outcome})).unwrap()
    }

    #[test]
    fn refusals_are_counted_and_an_absence_ends_the_whole() {
        let mut report = Report {
            letters: 62,
            ..Report::default()
        };
        report.take("a", Ok(answer("replayed"))).unwrap();
        report.take("a", Ok(answer("already_replayed"))).unwrap();
        for _ in 0..60 {
            report.take("b", Err(problem(409))).unwrap();
        }
        assert!(report.take("c", Err(problem(503))).is_err());
        let text = report.to_string();
        for part in [
            "replayed          1",
            "refused           60",
            "b: no",
            "and 10 more",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
