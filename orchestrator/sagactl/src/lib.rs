//! `sagactl`: the operators' command line for the orchestrator, for terminals and scripts.
//!
//! ```text
//!   arguments ─▶ Cli ─▶ one module a subject ─▶ Client ─▶ the orchestrator's HTTP API
//!                            │
//!                            ▼
//!                  Output (human or JSON) and an exit status
//! ```
//!
//! Each subject (`saga`, …) is a module with a clap enum and a function `run(command, &Session)`. The function prints
//! one value with [`output::Output::show`] and returns a [`Conclusion`]. A command that fails returns a
//! [`failure::Failure`], which has an exit status.

pub mod audit;
pub mod client;
pub mod conformance;
pub mod definition;
pub mod dlq;
pub mod failure;
pub mod output;
pub mod saga;
mod session;

pub use session::{Conclusion, Session};

use clap::{Args, Parser, Subcommand};
use client::Client;
use failure::Failure;
use output::{Format, Output};
use reqwest::Url;
use std::{path::PathBuf, process::ExitCode};

const EXIT_STATUS: &str = "\
Exit status:
  0  done, or nothing is wrong
  1  the orchestrator refused, or what was looked for is wrong or not there
  2  wrong usage (arguments, token), or the orchestrator cannot be reached or used now";

/// See sagas, act on them, and handle what needs a person.
#[derive(Debug, Parser)]
#[command(name = "sagactl", version, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// Format of answers.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "SAGACTL_OUTPUT"
    )]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

/// The address of the orchestrator, and the token for changes.
#[derive(Debug, Args)]
struct Connection {
    /// HTTP address of the orchestrator.
    #[arg(
        long,
        global = true,
        env = "SAGACTL_URL",
        default_value = "http://127.0.0.1:3001"
    )]
    url: Url,
    /// Access token of the orchestrator, needed for requests that change something.
    #[arg(long, global = true, env = "SAGACTL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the access token, so that the token is not visible in process lists.
    #[arg(
        long,
        global = true,
        env = "SAGACTL_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token"
    )]
    token_file: Option<PathBuf>,
}

/// The subjects, one module each.
#[derive(Debug, Subcommand)]
enum Command {
    /// See sagas and act on them.
    #[command(subcommand)]
    Saga(saga::SagaCommand),
    /// Check that orders, sagas, stock, money and messages are consistent.
    Audit(audit::AuditArguments),
    /// Check rule by rule, over Kafka, whether a participant keeps the contract; for test environments.
    Conformance(conformance::ConformanceArguments),
    /// Show, withdraw and restore versions of definitions.
    #[command(subcommand)]
    Definition(definition::DefinitionCommand),
    /// List, replay and discard records that could not be processed.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
}

/// Runs one command line, prints its result, and returns the exit status.
pub async fn run(cli: Cli) -> ExitCode {
    let output = Output::new(cli.output);
    match execute(cli.connection, output, cli.command).await {
        Ok(Conclusion::Good) => ExitCode::SUCCESS,
        Ok(Conclusion::Negative) => ExitCode::from(failure::NEGATIVE),
        Err(failure) => {
            output.fail(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

async fn execute(
    connection: Connection,
    output: Output,
    command: Command,
) -> Result<Conclusion, Failure> {
    let session = Session {
        client: Client::new(connection.url.clone(), connection.token()?)?,
        output,
    };
    match command {
        Command::Saga(command) => saga::run(command, &session).await,
        Command::Audit(arguments) => audit::run(arguments, &session).await,
        Command::Conformance(arguments) => conformance::run(arguments, &session).await,
        Command::Definition(command) => definition::run(command, &session).await,
        Command::Dlq(command) => dlq::run(command, &session).await,
    }
}

impl Connection {
    fn token(self) -> Result<Option<String>, Failure> {
        let Some(path) = self.token_file else {
            return Ok(self.token);
        };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::Usage(format!("the token file {}: {error}", path.display()))
        })?;
        Ok(Some(text.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
