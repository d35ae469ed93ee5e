//! The results of a run.

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub participant: String,
    pub topic: String,
    pub results: Vec<CaseResult>,
}

/// The result of one case with one command.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    pub command: String,
    pub case: String,
    pub why_it_matters: String,
    #[serde(flatten)]
    pub outcome: CaseOutcome,
    pub exchanges: Vec<Exchange>,
    pub duration_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum CaseOutcome {
    Passed,
    Failed { why: String },
    Skipped { why: String },
}

/// One exchange: the command, the expected reply and the received reply.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exchange {
    pub sent: String,
    pub expected: String,
    pub got: String,
}

impl CaseResult {
    /// Returns why the case did not pass.
    pub fn why(&self) -> &str {
        match &self.outcome {
            CaseOutcome::Passed => "",
            CaseOutcome::Failed { why } | CaseOutcome::Skipped { why } => why,
        }
    }
}

impl Report {
    /// Returns true if no rule was broken.
    pub fn conforms(&self) -> bool {
        self.failed().next().is_none()
    }

    pub fn failed(&self) -> impl Iterator<Item = &CaseResult> {
        self.results
            .iter()
            .filter(|result| matches!(result.outcome, CaseOutcome::Failed { .. }))
    }

    pub fn skipped(&self) -> impl Iterator<Item = &CaseResult> {
        self.results
            .iter()
            .filter(|result| matches!(result.outcome, CaseOutcome::Skipped { .. }))
    }

    pub fn passed_count(&self) -> usize {
        self.results
            .iter()
            .filter(|result| result.outcome == CaseOutcome::Passed)
            .count()
    }
}
