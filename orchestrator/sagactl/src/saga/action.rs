//! Acting on one saga: look, confirm, ask, and wait for the verdict.

use super::view::Saga;
use crate::{
    Conclusion, Session,
    failure::{Failure, Problem},
    output::Document,
};
use clap::Args;
use reqwest::header::{HeaderMap, HeaderValue, IF_MATCH};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Between two looks for a verdict that is not there yet.
const POLL: Duration = Duration::from_millis(200);

/// What every action needs.
#[derive(Debug, Args)]
pub struct ActionArguments {
    /// The saga's id, which is also the order's.
    id: Uuid,
    /// Why; stands in the audit, and in the saga's cause if it turns round.
    #[arg(long)]
    reason: String,
    /// Who asks, for the audit.
    #[arg(long, env = "USER", default_value = "sagactl")]
    actor: String,
    /// Only if the saga is still at this version (`show` says it).
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    /// How long to wait for the verdict, and for the outcome that a pending one waits for.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

/// An action, with what only it says.
pub struct Asked {
    pub action: &'static str,
    /// As people say it, such as `skip the compensation of reserve-stock`.
    pub words: String,
    /// Members of the request beside reason and actor.
    pub members: Value,
}

/// What became of an action, as its audit row says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    id: Uuid,
    saga_id: Uuid,
    #[serde(rename = "action")]
    name: String,
    step: Option<String>,
    decision: String,
    code: Option<String>,
    message: Option<String>,
    #[serde(default)]
    legal: Vec<String>,
    actor: String,
    reason: String,
    decided_at: Option<chrono::DateTime<chrono::Utc>>,
    status_before: Option<String>,
    status_after: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ActionList {
    actions: Vec<Document<Action>>,
}

/// Asks, and prints the verdict.
pub async fn ask(
    session: &Session,
    arguments: ActionArguments,
    asked: Asked,
) -> Result<Conclusion, Failure> {
    let id = arguments.id;
    let if_version = confirm(session, &arguments, &asked).await?;
    let mut headers = HeaderMap::new();
    if let Some(version) = if_version {
        let value = HeaderValue::try_from(format!("\"{version}\""))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        headers.insert(IF_MATCH, value);
    }
    let mut body = asked.members;
    body["reason"] = json!(arguments.reason);
    body["actor"] = json!(arguments.actor);
    let path = format!("/sagas/{id}/{}", asked.action);
    let first: Document<Action> = session.client.post(&path, headers, &body).await?;
    let wait = Duration::from_secs(arguments.wait);
    let action = await_verdict(session, first, wait).await?;
    session.output.show(&action);
    match action.known.decision.as_str() {
        "undecided" => Err(Failure::Usage(format!(
            "not decided within {} s; it stands in the log, and will be: see `sagactl saga actions {id}`",
            arguments.wait
        ))),
        _ => Ok(Conclusion::Good),
    }
}

/// The version that the saga must still have. What a person has seen and agreed to is what is done, or nothing is.
async fn confirm(
    session: &Session,
    arguments: &ActionArguments,
    asked: &Asked,
) -> Result<Option<u64>, Failure> {
    if arguments.yes {
        return Ok(arguments.if_version);
    }
    if !io::stdin().is_terminal() {
        let what = "nobody is there to confirm it: give --yes, and best --if-version too";
        return Err(Failure::Usage(what.to_owned()));
    }
    let saga: Document<Saga> = session
        .client
        .get(&format!("/sagas/{}", arguments.id))
        .await?;
    let question = format!("{}\n{}? [y/N] ", saga.known.headline(), asked.words);
    if !agreed(&question) {
        return Err(Failure::Usage("nothing was done".to_owned()));
    }
    Ok(arguments.if_version.or(Some(saga.known.version)))
}

fn agreed(question: &str) -> bool {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question}").and_then(|()| io::stderr().flush());
    let read = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Follows an action that is not decided, or whose outcome is still being asked for.
async fn await_verdict(
    session: &Session,
    first: Document<Action>,
    wait: Duration,
) -> Result<Document<Action>, Failure> {
    let deadline = Instant::now() + wait;
    let mut newest = first;
    let mut told = false;
    while newest.known.is_open() && Instant::now() < deadline {
        if newest.known.decision == "pending" && !told {
            session.output.note(&newest.to_string());
            told = true;
        }
        sleep(POLL).await;
        let path = format!("/sagas/{}/actions", newest.known.saga_id);
        let list: ActionList = session.client.get(&path).await?;
        let found = list
            .actions
            .into_iter()
            .find(|action| action.known.id == newest.known.id);
        newest = found.unwrap_or(newest);
    }
    match newest.known.decision.as_str() {
        "refused" => Err(Failure::Answered(Box::new(newest.known.refusal()))),
        _ => Ok(newest),
    }
}

impl Action {
    fn is_open(&self) -> bool {
        matches!(self.decision.as_str(), "undecided" | "pending")
    }

    /// As it would have been answered at once.
    fn refusal(self) -> Problem {
        let code = self.code.unwrap_or_else(|| "refused".to_owned());
        Problem {
            kind: format!("/problems/{}", code.replace('_', "-")),
            title: "Conflict".to_owned(),
            status: 409,
            detail: self.message.unwrap_or(code),
            legal: self.legal,
            ..Problem::default()
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(step) = &self.step {
            write!(f, " {step}")?;
        }
        write!(f, ": {}", self.decision)?;
        if self.decision == "pending" {
            f.write_str(", its participant is asked first whether it was done")?;
        }
        if let Some(message) = &self.message {
            write!(f, ", {message}")?;
        }
        match (&self.status_before, &self.status_after) {
            (Some(before), Some(after)) if before != after => {
                writeln!(f, " (the saga: {before} → {after})")
            }
            (_, Some(after)) => writeln!(f, " (the saga: {after})"),
            (_, None) => writeln!(f),
        }
    }
}

/// The audit of one saga.
impl fmt::Display for ActionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            return writeln!(f, "nothing was asked of it");
        }
        for Document { known, .. } in &self.actions {
            let at = known
                .decided_at
                .map_or_else(|| "-".to_owned(), super::view::time);
            write!(f, "{at} {} asked for {known}", known.actor)?;
            writeln!(f, "  because: {}", known.reason)?;
        }
        Ok(())
    }
}

/// JSON as an argument, or from a file: `@result.json`, `@-` for the standard input.
pub fn json_argument(text: &str) -> Result<Value, String> {
    let text = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some("-") => io::read_to_string(io::stdin()).map_err(|error| error.to_string())?,
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
    };
    serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))
}

impl Asked {
    /// An action on the whole saga.
    pub fn of_saga(action: &'static str) -> Self {
        Self {
            action,
            words: format!("{action} the saga"),
            members: json!({}),
        }
    }

    /// An action on a step, as `words` say it.
    pub fn of_step(action: &'static str, step: &str, words: &str) -> Self {
        Self {
            action,
            words: format!("{words} {step}"),
            members: json!({"step": step}),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members[name] = value.into();
        self
    }
}
