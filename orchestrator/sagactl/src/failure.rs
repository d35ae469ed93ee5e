//! Failures of commands, with their exit statuses.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use thiserror::Error;

/// Exit status of a refusal, and of a check that found something wrong.
pub const NEGATIVE: u8 = 1;
/// Exit status of wrong usage, and of an orchestrator that cannot be reached or used now. Clap uses it too.
pub const UNUSABLE: u8 = 2;

#[derive(Debug, Error)]
pub enum Failure {
    /// The orchestrator answered with a problem document.
    #[error("{0}")]
    Answered(Box<Problem>),
    #[error("{0}")]
    Usage(String),
    #[error("{url} cannot be reached: {}", innermost(.source))]
    Unreachable { url: String, source: reqwest::Error },
    /// The server is not an orchestrator, or not one of this version.
    #[error("{url} answered {status} with a body that sagactl does not understand: {why}")]
    Unintelligible {
        url: String,
        status: u16,
        why: String,
    },
}

impl Failure {
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Answered(problem) if problem.is_refusal() => NEGATIVE,
            Self::Answered(_)
            | Self::Usage(_)
            | Self::Unreachable { .. }
            | Self::Unintelligible { .. } => UNUSABLE,
        }
    }

    /// Returns the failure as a problem document, for programs.
    pub fn problem(&self) -> Problem {
        let kind = match self {
            Self::Answered(problem) => return (**problem).clone(),
            Self::Usage(_) => "usage",
            Self::Unreachable { .. } => "unreachable",
            Self::Unintelligible { .. } => "unintelligible",
        };
        Problem {
            kind: format!("/problems/{kind}"),
            detail: self.to_string(),
            ..Problem::default()
        }
    }
}

/// A problem document (RFC 9457), as the orchestrator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    /// The HTTP status; 0 if no server has answered.
    pub status: u16,
    pub detail: String,
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// The actions that are legal instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub legal: Vec<String>,
    /// Other members of the document.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Problem {
    /// Returns true if the orchestrator understood the request and refused it. Other statuses mean wrong usage, or that
    /// the orchestrator is unavailable.
    fn is_refusal(&self) -> bool {
        matches!(self.status, 404 | 409 | 410 | 412)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if !self.legal.is_empty() {
            write!(f, "\nlegal now: {}", self.legal.join(", "))?;
        }
        if self.status == 401 {
            f.write_str("\ngive the token with --token, --token-file or SAGACTL_TOKEN")?;
        }
        if let Some(seconds) = self.retry_after_seconds {
            write!(f, "\ntry again in {seconds} s")?;
        }
        Ok(())
    }
}

/// Returns the text of the innermost cause. It names the reason; the outer errors only say that the request failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answered(problem: Value) -> Failure {
        Failure::Answered(Box::new(serde_json::from_value(problem).unwrap()))
    }

    #[test]
    fn a_refusal_is_1_and_wrong_usage_or_absence_is_2() {
        for (status, expected) in [
            (404, NEGATIVE),
            (409, NEGATIVE),
            (410, NEGATIVE),
            (412, NEGATIVE),
            (400, UNUSABLE),
            (401, UNUSABLE),
            (403, UNUSABLE),
            (422, UNUSABLE),
            (500, UNUSABLE),
            (503, UNUSABLE),
        ] {
            let failure = answered(json!({"status": status}));
            assert_eq!(failure.exit_status(), expected, "{status}");
        }
        assert_eq!(Failure::Usage(String::new()).exit_status(), UNUSABLE);
    }

    #[test]
    fn a_refusal_names_the_legal_actions_and_keeps_unknown_fields() {
        let problem = json!({"type": "/problems/past-pivot", "title": "Conflict", "status": 409, "detail": "too late",
            "legal": ["retry", "skip"], "floor": 7});
        let failure = answered(problem.clone());
        assert_eq!(failure.to_string(), "too late\nlegal now: retry, skip");
        assert_eq!(serde_json::to_value(failure.problem()).unwrap(), problem);
    }
}
