//! `sagactl saga`: see sagas, and act on one of them.

mod action;
mod view;

use crate::{Conclusion, Session, failure::Failure, output::Document};
use action::{ActionArguments, ActionList, Asked, ask, json_argument};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;
use view::{Saga, SagaPage};

/// What is legal depends on where the saga stands: `show` says it, and a refusal names it.
#[derive(Debug, Subcommand)]
pub enum SagaCommand {
    /// Sagas, live and ended, newest first.
    List(ListArguments),
    /// One saga: what it waits for and since when, its steps, every attempt, and what may be asked of it.
    Show {
        /// The saga's id, which is also the order's.
        id: Uuid,
    },
    /// What was asked of a saga: who, when, why, and what became of it.
    Actions {
        /// The saga's id.
        id: Uuid,
    },
    /// Try again what waits for a person, perhaps with a corrected input.
    Retry {
        #[command(flatten)]
        arguments: ActionArguments,
        /// Only this step's command, instead of everything that is parked.
        #[arg(long)]
        step: Option<String>,
        /// Send this instead of what the definition makes: JSON, @FILE, or @- for the standard input.
        #[arg(long, value_name = "JSON", requires = "step", value_parser = json_argument)]
        input: Option<Value>,
    },
    /// Undo it because somebody no longer wants it; with its pivot in flight the outcome decides.
    Cancel {
        #[command(flatten)]
        arguments: ActionArguments,
    },
    /// Undo it because an operator says so; with its pivot in flight the outcome decides.
    Compensate {
        #[command(flatten)]
        arguments: ActionArguments,
    },
    /// Count a step as done, with a result; its participant is asked first, and if it did it, its own result stands.
    Complete {
        #[command(flatten)]
        arguments: ActionArguments,
        /// The step.
        #[arg(long)]
        step: String,
        /// What later steps find as its result: JSON, @FILE, or @- for the standard input.
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = json_argument)]
        result: Value,
    },
    /// Go on without a step, whose participant is asked first, or without its compensation.
    Skip {
        #[command(flatten)]
        arguments: ActionArguments,
        /// The step.
        #[arg(long)]
        step: String,
        /// What the step did stays: its compensation is skipped, and the saga ends abandoned.
        #[arg(long)]
        compensation: bool,
    },
    /// End it as it stands: nothing more of it is sent, done or undone.
    Abandon {
        #[command(flatten)]
        arguments: ActionArguments,
    },
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListArguments {
    /// Only `running`, `compensating`, `parked`, `completed`, `compensated` or `abandoned` ones.
    #[arg(long)]
    status: Option<String>,
    /// Only those that wait for this participant.
    #[arg(long, value_name = "PARTICIPANT")]
    waiting_on: Option<String>,
    /// Only those with this business key.
    #[arg(long, value_name = "KEY")]
    business_key: Option<String>,
    /// Only those of this definition.
    #[arg(long)]
    definition: Option<String>,
    /// Where the page before ended.
    #[arg(long)]
    cursor: Option<Uuid>,
    /// Lines of a page, at most 200.
    #[arg(long)]
    limit: Option<u16>,
}

pub async fn run(command: SagaCommand, session: &Session) -> Result<Conclusion, Failure> {
    let (arguments, asked) = match command {
        SagaCommand::List(arguments) => return list(session, &arguments).await,
        SagaCommand::Show { id } => return show(session, id).await,
        SagaCommand::Actions { id } => return actions(session, id).await,
        SagaCommand::Retry {
            arguments,
            step,
            input,
        } => (arguments, retry(step.as_deref(), input)),
        SagaCommand::Cancel { arguments } => (arguments, Asked::of_saga("cancel")),
        SagaCommand::Compensate { arguments } => (arguments, Asked::of_saga("compensate")),
        SagaCommand::Complete {
            arguments,
            step,
            result,
        } => {
            let asked = Asked::of_step("complete", &step, "complete");
            (arguments, asked.with("result", result))
        }
        SagaCommand::Skip {
            arguments,
            step,
            compensation,
        } => (arguments, skip(&step, compensation)),
        SagaCommand::Abandon { arguments } => (arguments, Asked::of_saga("abandon")),
    };
    ask(session, arguments, asked).await
}

async fn list(session: &Session, arguments: &ListArguments) -> Result<Conclusion, Failure> {
    let page: Document<SagaPage> = session.client.get_with("/sagas", arguments).await?;
    session.output.show(&page);
    Ok(Conclusion::Good)
}

async fn show(session: &Session, id: Uuid) -> Result<Conclusion, Failure> {
    let saga: Document<Saga> = session.client.get(&format!("/sagas/{id}")).await?;
    session.output.show(&saga);
    Ok(Conclusion::Good)
}

async fn actions(session: &Session, id: Uuid) -> Result<Conclusion, Failure> {
    let path = format!("/sagas/{id}/actions");
    let list: Document<ActionList> = session.client.get(&path).await?;
    session.output.show(&list);
    Ok(Conclusion::Good)
}

fn retry(step: Option<&str>, input: Option<Value>) -> Asked {
    let asked = match step {
        Some(step) => Asked::of_step("retry", step, "retry"),
        None => Asked::of_saga("retry"),
    };
    match input {
        Some(input) => asked.with("input", input),
        None => asked,
    }
}

fn skip(step: &str, compensation: bool) -> Asked {
    let words = if compensation {
        "skip the compensation of"
    } else {
        "skip"
    };
    Asked::of_step("skip", step, words).with("compensation", compensation)
}
