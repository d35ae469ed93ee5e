//! Acts on one saga: shows it, asks for confirmation, sends the action, and waits for the decision.

use super::view::Saga;
use crate::{
    failure::{Failure, Problem},
    output::Document,
    session::{Conclusion, Session},
};
use clap::Args;
use reqwest::header::{HeaderMap, HeaderValue, IF_MATCH};
use saga_core::json::{self, JsonError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Time between two reads of an action that is not decided yet.
const POLL: Duration = Duration::from_millis(200);

/// Arguments that every action needs.
#[derive(Debug, Args)]
pub struct ActionArguments {
    /// Id of the saga, which is also the order's id.
    id: Uuid,
    /// Reason for the audit, and the saga's cause if the action makes it compensate.
    #[arg(long)]
    reason: String,
    /// Name of the person who asks, for the audit.
    #[arg(long, env = "USER", default_value = "sagactl")]
    actor: String,
    /// Acts only if the saga is still at this version, which `show` prints.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    /// Longest wait for the decision, and for the outcome that a pending decision depends on.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
}

/// An action to request, with its own members.
pub struct Asked {
    pub action: &'static str,
    /// A description for people, such as `skip the compensation of reserve-stock`.
    pub words: String,
    /// Members of the request other than reason and actor.
    pub members: Value,
}

/// An action and its decision, as its audit row has it.
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

/// Requests the action, and prints the decision.
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
            "not decided within {} s; it is in the log, and will be decided: see `sagactl saga actions {id}`",
            arguments.wait
        ))),
        _ => Ok(Conclusion::Good),
    }
}

/// Asks for confirmation. Returns the version that the saga must still have, so that the action applies only to the
/// state that the person has seen.
async fn confirm(
    session: &Session,
    arguments: &ActionArguments,
    asked: &Asked,
) -> Result<Option<u64>, Failure> {
    if arguments.yes {
        return Ok(arguments.if_version);
    }
    if !io::stdin().is_terminal() {
        let what = "there is no terminal to confirm it: give --yes, and best --if-version too";
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

/// Polls an action until it is decided and its outcome is known, for at most `wait`.
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

    /// Makes the problem that the API would have returned for an immediate refusal.
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

/// Prints the audit of one saga.
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

/// Parses JSON from an argument, or from a file: `@result.json`, `@-` for the standard input.
pub fn json_argument(text: &str) -> Result<Value, String> {
    let text = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some("-") => io::read_to_string(io::stdin()).map_err(|error| error.to_string())?,
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
    };
    json::from_slice(text.as_bytes()).map_err(|error| match error {
        JsonError::Malformed(error) => format!("not JSON: {error}"),
        JsonError::OutOfRange(found) => found.to_string(),
    })
}

impl Asked {
    /// Makes an action on the whole saga.
    pub fn of_saga(action: &'static str) -> Self {
        Self {
            action,
            words: format!("{action} the saga"),
            members: json!({}),
        }
    }

    /// Makes an action on a step. `words` describe the action for people.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_sent_as_it_was_written_or_not_at_all() {
        assert_eq!(
            json_argument(r#"{"parcel": 18446744073709551615}"#),
            Ok(json!({"parcel": 18_446_744_073_709_551_615_u64}))
        );
        let large = json_argument(r#"{"parcels": [1, 123456789012345678901234]}"#).unwrap_err();
        assert!(large.starts_with("at /parcels/1: "), "{large}");
        assert!(json_argument("{").unwrap_err().starts_with("not JSON: "));
    }
}
