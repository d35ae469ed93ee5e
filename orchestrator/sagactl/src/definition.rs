//! `sagactl definition`: shows which versions of definitions new sagas take, and withdraws or restores versions.

use crate::{
    failure::Failure,
    output::{Document, table},
    session::{Conclusion, Session},
};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use std::fmt;

/// Shows, withdraws and restores versions. New sagas take the highest version that is registered and not withdrawn;
/// live sagas keep theirs.
#[derive(Debug, Subcommand)]
pub enum DefinitionCommand {
    /// List every registered version, and which of them new sagas take.
    List,
    /// List the withdrawals and restorations of a definition: by whom, when and why.
    Actions {
        /// Name of the definition.
        name: String,
    },
    /// Withdraw a version: new sagas take the next lower one, or, if there is none, starts are refused.
    Withdraw(ActionArguments),
    /// Restore a version: new sagas may take it again.
    Restore(ActionArguments),
}

#[derive(Debug, Args)]
pub struct ActionArguments {
    /// Name of the definition.
    name: String,
    /// Only this version; every version if left out.
    #[arg(long)]
    version: Option<u32>,
    /// Reason for the audit, and for clients whose starts are refused.
    #[arg(long)]
    reason: String,
    /// Name of the person who asks, for the audit.
    #[arg(long, env = "USER", default_value = "sagactl")]
    actor: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DefinitionList {
    definitions: Vec<Document<Definition>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Definition {
    name: String,
    runs: Option<u32>,
    versions: Vec<Version>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    #[serde(rename = "version")]
    number: u32,
    registered_at: DateTime<Utc>,
    withdrawn: Option<Decided>,
}

#[derive(Clone, Debug, Deserialize)]
struct Decided {
    at: DateTime<Utc>,
    actor: String,
    reason: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ActionList {
    actions: Vec<Action>,
}

#[derive(Clone, Debug, Deserialize)]
struct Action {
    version: u32,
    #[serde(rename = "action")]
    what: String,
    #[serde(flatten)]
    decided: Decided,
}

pub async fn run(command: DefinitionCommand, session: &Session) -> Result<Conclusion, Failure> {
    match command {
        DefinitionCommand::List => {
            let list: Document<DefinitionList> = session.client.get("/definitions").await?;
            session.output.show(&list);
        }
        DefinitionCommand::Actions { name } => {
            let path = format!("/definitions/{name}/actions");
            let list: Document<ActionList> = session.client.get(&path).await?;
            session.output.show(&list);
        }
        DefinitionCommand::Withdraw(arguments) => decide(session, "withdraw", arguments).await?,
        DefinitionCommand::Restore(arguments) => decide(session, "restore", arguments).await?,
    }
    Ok(Conclusion::Good)
}

async fn decide(
    session: &Session,
    action: &str,
    arguments: ActionArguments,
) -> Result<(), Failure> {
    let path = format!("/definitions/{}/{action}", arguments.name);
    let body = json!({
        "version": arguments.version,
        "reason": arguments.reason,
        "actor": arguments.actor,
    });
    let definition: Document<Definition> =
        session.client.post(&path, HeaderMap::new(), &body).await?;
    session.output.show(&definition);
    Ok(())
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl fmt::Display for DefinitionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.definitions.is_empty() {
            return writeln!(f, "nothing is registered");
        }
        self.definitions
            .iter()
            .try_for_each(|definition| definition.fmt(f))
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.runs {
            Some(version) => writeln!(f, "{}: new sagas take version {version}", self.name)?,
            None => writeln!(
                f,
                "{}: starts are refused, every version is withdrawn",
                self.name
            )?,
        }
        let rows: Vec<Vec<String>> = self.versions.iter().map(Version::cells).collect();
        table(f, &rows)
    }
}

impl Version {
    fn cells(&self) -> Vec<String> {
        let withdrawn = self.withdrawn.as_ref().map_or_else(String::new, |by| {
            format!("withdrawn {} by {}: {}", time(by.at), by.actor, by.reason)
        });
        vec![
            String::new(),
            format!("version {}", self.number),
            format!("registered {}", time(self.registered_at)),
            withdrawn,
        ]
    }
}

impl fmt::Display for ActionList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            return writeln!(f, "no version was withdrawn or restored");
        }
        for Action {
            version,
            what,
            decided,
        } in &self.actions
        {
            let Decided { at, actor, reason } = decided;
            let at = time(*at);
            writeln!(f, "{at} version {version} {what} by {actor}: {reason}")?;
        }
        Ok(())
    }
}
