//! `sagactl saga`: shows sagas, and acts on one of them.

mod action;
mod view;

use crate::{
    failure::Failure,
    output::Document,
    session::{Conclusion, Session},
};
use action::{ActionArguments, ActionList, Asked, ask, json_argument};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;
use view::{Saga, SagaPage};

/// Shows sagas and acts on them. Which actions are legal depends on a saga's state: `show` lists them, and a refusal
/// names them.
#[derive(Debug, Subcommand)]
pub enum SagaCommand {
    /// List sagas, live and ended, newest first.
    List(ListArguments),
    /// Show one saga: what it waits for and since when, its steps, every attempt, and the legal actions.
    Show {
        /// Id of the saga, which is also the order's id.
        id: Uuid,
    },
    /// List the actions that were requested for a saga: by whom, when, why, and their decisions.
    Actions {
        /// Id of the saga.
        id: Uuid,
    },
    /// Retry the commands that need a person, optionally with a corrected input.
    Retry {
        #[command(flatten)]
        arguments: ActionArguments,
        /// Retry only this step's command, instead of everything that is parked.
        #[arg(long)]
        step: Option<String>,
        /// Send this input instead of the one that the definition makes: JSON, @FILE, or @- for the standard input.
        #[arg(long, value_name = "JSON", requires = "step", value_parser = json_argument)]
        input: Option<Value>,
    },
    /// Compensate the saga because the business cancels it; if its pivot is in flight, the outcome decides.
    Cancel {
        #[command(flatten)]
        arguments: ActionArguments,
    },
    /// Compensate the saga because an operator decides so; if its pivot is in flight, the outcome decides.
    Compensate {
        #[command(flatten)]
        arguments: ActionArguments,
    },
    /// Count a step as done, with a result. Its participant is asked for the outcome first: if the step was done, its
    /// own result counts. If the participant was asked before without success, the step counts as done at once.
    Complete {
        #[command(flatten)]
        arguments: ActionArguments,
        /// Name of the step.
        #[arg(long)]
        step: String,
        /// Result that later steps use: JSON, @FILE, or @- for the standard input.
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = json_argument)]
        result: Value,
    },
    /// Count the pivot as not done, and compensate the saga. Legal only if the pivot's participant was asked for the
    /// outcome without success. If the pivot was done after all, it stays done.
    NotDone {
        #[command(flatten)]
        arguments: ActionArguments,
        /// Name of the pivot.
        #[arg(long)]
        step: String,
    },
    /// Continue without a step, whose participant is asked for the outcome first, or without a step's compensation.
    Skip {
        #[command(flatten)]
        arguments: ActionArguments,
        /// Name of the step.
        #[arg(long)]
        step: String,
        /// Skip the step's compensation: its effect stays, and the saga ends abandoned.
        #[arg(long)]
        compensation: bool,
    },
    /// End the saga in its current state: no further command is sent for it, and nothing is compensated.
    Abandon {
        #[command(flatten)]
        arguments: ActionArguments,
    },
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListArguments {
    /// Only sagas that are `running`, `compensating`, `parked`, `completed`, `compensated` or `abandoned`.
    #[arg(long)]
    status: Option<String>,
    /// Only sagas that wait for this participant.
    #[arg(long, value_name = "PARTICIPANT")]
    waiting_on: Option<String>,
    /// Only sagas with this business key.
    #[arg(long, value_name = "KEY")]
    business_key: Option<String>,
    /// Only sagas of this definition.
    #[arg(long)]
    definition: Option<String>,
    /// Cursor of the next page, as the previous page printed it.
    #[arg(long)]
    cursor: Option<Uuid>,
    /// Number of sagas on a page, at most 200.
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
        SagaCommand::NotDone { arguments, step } => {
            let asked = Asked::of_step("not-done", &step, "count as not done");
            (arguments, asked)
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
