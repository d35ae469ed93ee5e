//! `sagactl saga`: see sagas, and act on one of them.

mod view;

use crate::{Conclusion, Session, failure::Failure, output::Document};
use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;
use view::{Saga, SagaPage};

#[derive(Debug, Subcommand)]
pub enum SagaCommand {
    /// Sagas, live and ended, newest first.
    List(ListArguments),
    /// One saga: what it waits for and since when, its steps, and every attempt.
    Show {
        /// The saga's id, which is also the order's.
        id: Uuid,
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
    match command {
        SagaCommand::List(arguments) => {
            let page: Document<SagaPage> = session.client.get_with("/sagas", &arguments).await?;
            session.output.show(&page);
        }
        SagaCommand::Show { id } => {
            let saga: Document<Saga> = session.client.get(&format!("/sagas/{id}")).await?;
            session.output.show(&saga);
        }
    }
    Ok(Conclusion::Good)
}
