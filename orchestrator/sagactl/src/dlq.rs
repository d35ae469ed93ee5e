//! `sagactl dlq`: records that could not be processed. See them, put them right, replay or discard them.

mod bulk;
mod view;

use crate::{Conclusion, Session, failure::Failure, output::Document};
use bulk::{Bulk, Deed};
use clap::{ArgGroup, Args, Subcommand};
use reqwest::header::HeaderMap;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};
use uuid::Uuid;
use view::{Letter, LetterPage, Verdict};

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Letters that nobody has decided about, by topic, oldest first.
    List(ListArguments),
    /// One letter: why it is one, and its record's key, headers and value.
    Show {
        /// Such as saga.inputs.dlq/0/42.
        id: String,
    },
    /// Put records back to where they came from; a letter that was replayed before is left alone.
    Replay(ReplayArguments),
    /// Say that records are not needed. Kafka keeps them for as long as it does, and `list --all` shows them.
    Discard(DiscardArguments),
}

/// Which letters.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    /// Only letters of this topic's records.
    #[arg(long)]
    topic: Option<String>,
    /// Only letters with this reason, such as bad_payload.
    #[arg(long)]
    reason: Option<String>,
    /// Only letters of this saga.
    #[arg(long)]
    saga: Option<Uuid>,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    selection: Selection,
    /// Also those that were replayed or discarded.
    #[arg(long)]
    all: bool,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<String>,
    /// Lines of a page, at most 200.
    #[arg(long, default_value_t = 50)]
    limit: u16,
}

/// One letter, or all that are selected.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["id", "all"]))]
struct Which {
    /// One letter, such as saga.inputs.dlq/0/42.
    id: Option<String>,
    /// All letters that are selected by --topic, --reason and --saga.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
    /// Why, for whoever asks later.
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Who decides.
    #[arg(long, env = "USER", default_value = "sagactl")]
    actor: String,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    #[command(flatten)]
    which: Which,
    /// A file with the record's value, put right.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    value: Option<PathBuf>,
    /// A header put right; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", conflicts_with = "all", value_parser = header)]
    headers: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct DiscardArguments {
    #[command(flatten)]
    which: Which,
}

/// What is asked about one letter.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    reason: String,
    actor: String,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
}

/// The query of one page.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Query<'a> {
    topic: Option<&'a str>,
    reason: Option<&'a str>,
    saga: Option<Uuid>,
    all: bool,
    cursor: Option<String>,
    limit: usize,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("must look like NAME=VALUE".to_owned()),
    }
}

/// Ids come from people: whatever is no path must not become one.
fn path(id: &str, below: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = id.split('/').collect();
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    match parts[..] {
        [topic, partition, offset] if parts.iter().all(|part| plain(part)) => {
            Ok(format!("/dead-letters/{topic}/{partition}/{offset}{below}"))
        }
        _ => Err(Failure::Usage(format!(
            "'{id}' is no letter's id, which looks like saga.inputs.dlq/0/42"
        ))),
    }
}

pub async fn run(command: DlqCommand, session: &Session) -> Result<Conclusion, Failure> {
    match command {
        DlqCommand::List(arguments) => list(arguments, session).await,
        DlqCommand::Show { id } => {
            let letter: Document<Letter> = session.client.get(&path(&id, "")?).await?;
            session.output.show(&letter);
            Ok(Conclusion::Good)
        }
        DlqCommand::Replay(arguments) => {
            let value = match &arguments.value {
                None => None,
                Some(file) => Some(read(file)?),
            };
            let request = Request {
                value,
                headers: arguments.headers.into_iter().collect(),
                ..request(&arguments.which)
            };
            decide(Deed::Replay, arguments.which, request, session).await
        }
        DlqCommand::Discard(arguments) => {
            let request = request(&arguments.which);
            decide(Deed::Discard, arguments.which, request, session).await
        }
    }
}

fn request(which: &Which) -> Request {
    Request {
        reason: which.why.clone(),
        actor: which.actor.clone(),
        dry_run: which.dry_run,
        value: None,
        headers: BTreeMap::new(),
    }
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("the value file {}: {error}", file.display())))
}

/// One page, filled: the orchestrator looks at a bounded number of letters a request, and few of them may fit.
async fn list(arguments: ListArguments, session: &Session) -> Result<Conclusion, Failure> {
    let mut query = Query {
        topic: arguments.selection.topic.as_deref(),
        reason: arguments.selection.reason.as_deref(),
        saga: arguments.selection.saga,
        all: arguments.all,
        cursor: arguments.cursor,
        limit: usize::from(arguments.limit),
    };
    let mut shown = LetterPage::default();
    loop {
        let page: LetterPage = session.client.get_with("/dead-letters", &query).await?;
        shown.letters.extend(page.letters);
        shown.next_cursor = page.next_cursor;
        query.limit = usize::from(arguments.limit).saturating_sub(shown.letters.len());
        query.cursor.clone_from(&shown.next_cursor);
        if query.limit == 0 || query.cursor.is_none() {
            break;
        }
    }
    session.output.show(&shown);
    Ok(Conclusion::Good)
}

async fn decide(
    deed: Deed,
    which: Which,
    request: Request,
    session: &Session,
) -> Result<Conclusion, Failure> {
    if let Some(id) = &which.id {
        let path = path(id, deed.path())?;
        let verdict: Document<Verdict> = session
            .client
            .post(&path, HeaderMap::new(), &request)
            .await?;
        session.output.show(&verdict);
        return Ok(Conclusion::Good);
    }
    let bulk = Bulk {
        session,
        deed,
        request,
    };
    bulk.run(&which.selection).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn parse(arguments: &str) -> Result<DlqCommand, clap::Error> {
        let command = DlqCommand::augment_subcommands(clap::Command::new("dlq"));
        let words = std::iter::once("dlq").chain(arguments.split(' '));
        DlqCommand::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn one_letter_or_all_but_never_neither_and_always_why() {
        for good in [
            "replay a.dlq/0/1 --why x",
            "replay a.dlq/0/1 --why x --value f --header a=b --header c==",
            "replay --all --reason bad_payload --why x --dry-run",
            "discard --all --saga 01990000-0000-7000-8000-000000000001 --why x",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "replay --why x",
            "replay a.dlq/0/1",
            "replay a.dlq/0/1 --all --why x",
            "replay --all --why x --value f",
            "replay a.dlq/0/1 --why x --header =b",
            "discard a.dlq/0/1 --why x --value f",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_becomes_a_path_and_nothing_else_does() {
        assert_eq!(
            path("saga.inputs.dlq/0/42", "/replay").unwrap(),
            "/dead-letters/saga.inputs.dlq/0/42/replay"
        );
        for bad in [
            "", "a", "a/0", "a/0/1/2", "a?b/0/1", "/0/1", "a/0/1#", "a//1",
        ] {
            assert!(path(bad, "").is_err(), "{bad}");
        }
    }
}
