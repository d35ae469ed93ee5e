//! `sagactl dlq`: lists records that could not be processed, and corrects, replays or discards them.

mod bulk;
mod request;
mod view;

use crate::{
    failure::Failure,
    output::Document,
    session::{Conclusion, Session},
};
use bulk::{Bulk, Deed};
use clap::{ArgGroup, Args, Subcommand};
use request::{Query, Request, Selection, path};
use reqwest::header::HeaderMap;
use std::{collections::BTreeMap, path::PathBuf};
use view::{DecisionAnswer, Letter, LetterPage};

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List letters without a decision, by topic, oldest first.
    List(ListArguments),
    /// Show one letter: its reason, and its record's key, headers and value.
    Show {
        /// Id of the letter, such as saga.inputs.dlq/0/42.
        id: String,
    },
    /// Publish records to the topics that they came from; a letter that was replayed before is not replayed again.
    Replay(ReplayArguments),
    /// Record that letters are not needed. They stay in Kafka until their topic's retention passes, and `list --all`
    /// shows them.
    Discard(DiscardArguments),
}

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    selection: Selection,
    /// Also letters that were replayed or discarded.
    #[arg(long)]
    all: bool,
    /// Cursor of the next page, as the previous page printed it.
    #[arg(long)]
    cursor: Option<String>,
    /// Number of letters on a page, at most 200.
    #[arg(long, default_value_t = 50)]
    limit: u16,
}

/// One letter, or all selected letters.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["id", "all"]))]
struct Which {
    /// Id of one letter, such as saga.inputs.dlq/0/42.
    id: Option<String>,
    /// All letters that --topic, --reason and --saga select.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
    /// Reason for the audit.
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Name of the person who decides, for the audit.
    #[arg(long, env = "USER", default_value = "sagactl")]
    actor: String,
    /// Only report what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    #[command(flatten)]
    which: Which,
    /// File with the corrected value of the record.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    value: Option<PathBuf>,
    /// Corrected header; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", conflicts_with = "all", value_parser = header)]
    headers: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct DiscardArguments {
    #[command(flatten)]
    which: Which,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("must look like NAME=VALUE".to_owned()),
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
                ..request_of(&arguments.which)
            };
            decide(Deed::Replay, arguments.which, request, session).await
        }
        DlqCommand::Discard(arguments) => {
            let request = request_of(&arguments.which);
            decide(Deed::Discard, arguments.which, request, session).await
        }
    }
}

fn request_of(which: &Which) -> Request {
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

/// Lists one full page. The orchestrator reads a bounded number of letters per request, of which few may match, so
/// several requests may be needed.
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
        let answer: Document<DecisionAnswer> = session
            .client
            .post(&path, HeaderMap::new(), &request)
            .await?;
        session.output.show(&answer);
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
}
