//! The API's views of sagas, printed for people. The types name only the fields that are printed.

use crate::output::table;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;
use std::fmt;
use uuid::Uuid;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SagaPage {
    sagas: Vec<Summary>,
    next_cursor: Option<Uuid>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    id: Uuid,
    definition: String,
    status: String,
    business_key: Option<String>,
    waiting_on: Option<Waiting>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    since: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
    text: String,
}

impl fmt::Display for SagaPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sagas.is_empty() {
            return writeln!(f, "no such saga");
        }
        let rows: Vec<Vec<String>> = self.sagas.iter().map(Summary::cells).collect();
        table(f, &rows)?;
        match self.next_cursor {
            Some(cursor) => writeln!(f, "more: --cursor {cursor}"),
            None => Ok(()),
        }
    }
}

impl Summary {
    fn cells(&self) -> Vec<String> {
        let waiting = self.waiting_on.as_ref();
        vec![
            self.id.to_string(),
            self.status.clone(),
            self.definition.clone(),
            self.business_key.clone().unwrap_or_else(|| "-".to_owned()),
            waiting.map_or_else(String::new, |waiting| waiting.text.clone()),
        ]
    }
}

/// One saga with all its steps.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saga {
    id: Uuid,
    definition: String,
    definition_version: u32,
    status: String,
    parked: Option<Fault>,
    abandoned: Option<String>,
    cause: Option<Fault>,
    business_key: Option<String>,
    correlation_id: String,
    pub version: u64,
    started_at: DateTime<Utc>,
    deadline_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    waiting_on: Waiting,
    legal_actions: Vec<Legal>,
    steps: Vec<Step>,
}

/// An action that is legal for a saga.
#[derive(Clone, Debug, Deserialize)]
struct Legal {
    action: String,
    step: Option<String>,
    #[serde(default)]
    compensation: bool,
    #[serde(default)]
    pending: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Fault {
    step: Option<String>,
    code: String,
    message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    name: String,
    kind: String,
    participant: String,
    state: String,
    done_by_starter: bool,
    fault: Option<Fault>,
    attempts: Vec<Attempt>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    #[serde(rename = "attempt")]
    number: u32,
    command: String,
    sent_at: DateTime<Utc>,
    picked_up_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
    fault: Option<Fault>,
    retry_at: Option<DateTime<Utc>>,
}

impl Saga {
    /// Returns a line with the saga's id, its status, and the reason why it waits.
    pub fn headline(&self) -> String {
        let Self {
            id,
            definition,
            status,
            ..
        } = self;
        let text = &self.waiting_on.text;
        format!("saga {id} ({definition}) is {status}: {text}")
    }
}

impl fmt::Display for Saga {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "saga {}: {}", self.id, self.status)?;
        writeln!(
            f,
            "  {} version {}, business key {}, correlation id {}, at version {}",
            self.definition,
            self.definition_version,
            self.business_key.as_deref().unwrap_or("none"),
            self.correlation_id,
            self.version
        )?;
        let end = match self.ended_at {
            Some(ended_at) => format!("ended {}", time(ended_at)),
            None => format!("deadline {}", time(self.deadline_at)),
        };
        writeln!(f, "  started {}, {end}", time(self.started_at))?;
        let Waiting {
            since,
            next_at,
            text,
        } = &self.waiting_on;
        if self.ended_at.is_none() {
            writeln!(f, "  {text}")?;
            let next = next_at.map_or_else(|| "not by itself".to_owned(), time);
            writeln!(f, "  waiting since {}; moves next: {next}", time(*since))?;
        }
        for (what, fault) in [("parked", &self.parked), ("cause", &self.cause)] {
            if let Some(fault) = fault {
                writeln!(f, "  {what}: {fault}")?;
            }
        }
        if let Some(reason) = &self.abandoned {
            writeln!(f, "  abandoned: {reason}")?;
        }
        self.steps.iter().try_for_each(|step| step.fmt(f))?;
        if self.legal_actions.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nlegal now:")?;
        self.legal_actions.iter().try_for_each(|legal| legal.fmt(f))
    }
}

/// Prints the action as it is requested on the command line.
impl fmt::Display for Legal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.action)?;
        if let Some(step) = &self.step {
            write!(f, " --step {step}")?;
        }
        if self.compensation {
            f.write_str(" --compensation")?;
        }
        if self.pending {
            f.write_str("  (decided once its participant has said whether it was done)")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            participant,
            state,
            ..
        } = self;
        let starter = if self.done_by_starter {
            ", done by the starter"
        } else {
            ""
        };
        writeln!(
            f,
            "\n{name}: {state} ({kind} step of {participant}{starter})"
        )?;
        if let Some(fault) = &self.fault {
            writeln!(f, "  {fault}")?;
        }
        let rows: Vec<Vec<String>> = self.attempts.iter().map(Attempt::cells).collect();
        table(f, &rows)
    }
}

impl Attempt {
    fn cells(&self) -> Vec<String> {
        let outcome = match (&self.outcome, self.picked_up_at) {
            (Some(outcome), _) => outcome.as_str(),
            (None, Some(_)) => "picked up, no answer",
            (None, None) => "no answer",
        };
        let took = self
            .ended_at
            .map_or_else(String::new, |ended_at| span(ended_at - self.sent_at));
        let fault = self
            .fault
            .as_ref()
            .map_or_else(String::new, Fault::to_string);
        let retry = self
            .retry_at
            .map_or_else(String::new, |at| format!(" (retried {})", time(at)));
        vec![
            String::new(),
            time(self.sent_at),
            format!("{} #{}", self.command, self.number),
            outcome.to_owned(),
            took,
            format!("{fault}{retry}"),
        ]
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "{step}: ")?;
        }
        write!(f, "{}: {}", self.code, self.message)
    }
}

pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Prints a duration in milliseconds if it is below ten seconds, else in seconds.
fn span(time: TimeDelta) -> String {
    let milliseconds = time.num_milliseconds();
    if milliseconds < 10_000 {
        format!("{milliseconds} ms")
    } else {
        format!("{} s", milliseconds / 1_000)
    }
}
