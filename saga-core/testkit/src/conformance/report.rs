//! What the kit found.

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub participant: String,
    pub topic: String,
    pub results: Vec<CaseResult>,
}

/// One case with one command.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    pub command: String,
    pub case: String,
    pub why_it_matters: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub exchanges: Vec<Exchange>,
    pub duration_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed { why: String },
    Skipped { why: String },
}

/// What was sent, what should have come, and what came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exchange {
    pub sent: String,
    pub expected: String,
    pub got: String,
}

impl CaseResult {
    /// Why it did not pass.
    pub fn why(&self) -> &str {
        match &self.verdict {
            Verdict::Passed => "",
            Verdict::Failed { why } | Verdict::Skipped { why } => why,
        }
    }
}

impl Report {
    /// Whether no rule was broken.
    pub fn conforms(&self) -> bool {
        self.failed().next().is_none()
    }

    pub fn failed(&self) -> impl Iterator<Item = &CaseResult> {
        self.results
            .iter()
            .filter(|result| matches!(result.verdict, Verdict::Failed { .. }))
    }

    pub fn skipped(&self) -> impl Iterator<Item = &CaseResult> {
        self.results
            .iter()
            .filter(|result| matches!(result.verdict, Verdict::Skipped { .. }))
    }

    pub fn passed_count(&self) -> usize {
        self.results
            .iter()
            .filter(|result| result.verdict == Verdict::Passed)
            .count()
    }
}
