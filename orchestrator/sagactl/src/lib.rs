//! `sagactl`: what operators do with the orchestrator, from a terminal or a script.
//!
//! ```text
//!   arguments ─▶ Cli ─▶ one module a subject ─▶ Client ─▶ the orchestrator's HTTP API
//!                            │
//!                            ▼
//!                  Output (human or JSON) and an exit status
//! ```
//!
//! A subject (`saga`, …) is a module of its own with a clap enum and a `run(command, &Session)`. It prints one value
//! with [`output::Output::show`] and returns a [`Conclusion`]; whatever went wrong is a [`failure::Failure`], which
//! knows its exit status.

pub mod audit;
pub mod client;
pub mod conformance;
pub mod dlq;
pub mod failure;
pub mod output;
pub mod saga;

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

/// See sagas, act on them, and look after what needs a person.
#[derive(Debug, Parser)]
#[command(name = "sagactl", version, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// How answers are printed.
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

/// Where the orchestrator is, and what proves that we may change things.
#[derive(Debug, Args)]
struct Connection {
    /// The orchestrator's HTTP address.
    #[arg(
        long,
        global = true,
        env = "SAGACTL_URL",
        default_value = "http://127.0.0.1:3001"
    )]
    url: Url,
    /// Its access token, needed for whatever changes something.
    #[arg(long, global = true, env = "SAGACTL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the token, which then shows in no process list.
    #[arg(
        long,
        global = true,
        env = "SAGACTL_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token"
    )]
    token_file: Option<PathBuf>,
}

/// One subject a module.
#[derive(Debug, Subcommand)]
enum Command {
    /// See sagas and act on them.
    #[command(subcommand)]
    Saga(saga::SagaCommand),
    /// Whether everything adds up: orders, sagas, stock, money and messages.
    Audit(audit::AuditArguments),
    /// Whether a participant keeps the contract, rule by rule, over Kafka; for test environments.
    Conformance(conformance::ConformanceArguments),
    /// Records that could not be processed.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
}

/// What every subject works with.
#[derive(Debug)]
pub struct Session {
    pub client: Client,
    pub output: Output,
}

/// How a command that could do its work came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    Good,
    /// It looked, and what it found (and has printed) is wrong.
    Negative,
}

/// Runs one command line and prints what comes of it.
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
