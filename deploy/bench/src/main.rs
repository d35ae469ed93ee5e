//! How fast the whole of it is, and what a saga costs.
//!
//! ```text
//!  options ─▶ session ─▶ system: Postgres, Kafka, four services, each a process
//!     run ─────┤   scenarios, one after the other
//!     soak ────┤   for long, and while old partitions go
//!     scale ───┤   with more processes and partitions
//!     flat ────┤   with and without a history of millions
//!     crowd ───┤   while a crowd of sagas waits for a dead participant
//!              ├──▶ scenario: what is ordered, and how it must end
//!              ├──▶ stage: load (client, watch) and measure (CPU, memory, write-ahead log, bytes), at the same time
//!              ├──▶ floor: what the machine allows for the same sagas
//!              ├──▶ check: what stands in the databases adds up
//!              └──▶ report: JSON, a table, plots
//! ```
//!
//! With `SAGA_E2E_SERVICE` set it is that service: this is how it starts what it measures.

mod check;
mod crowd;
mod flat;
mod floor;
mod kafka;
mod load;
mod measure;
mod options;
mod progress;
mod report;
mod run;
mod scale;
mod scenario;
mod session;
mod soak;
mod stage;
mod system;

use anyhow::Result;
use options::{Command, Options};
use saga_e2e::serve::named_service;
use std::{process::ExitCode, time::Duration};

/// After everything has been stopped, how long a thread of the load generator may still run.
const ABANDON_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    named_service().unwrap_or_else(|| measure(&Options::read()))
}

/// Whether every result is right.
async fn perform(command: &Command) -> Result<bool> {
    let out = &command.servers().out;
    let mistakes = match command {
        Command::Run(options) => {
            let report = run::run(options).await?;
            report.write(out)?;
            progress::say(&report.table());
            report.mistakes
        }
        Command::Soak(options) => {
            let report = soak::soak(options).await?;
            report.write(out)?;
            progress::say(&report.table());
            report.mistakes
        }
        Command::Scale(options) => {
            let report = scale::scale(options).await?;
            report.write(out)?;
            progress::say(&report.table());
            report.mistakes
        }
        Command::Flat(options) => {
            let report = flat::run(options).await?;
            report.write(out)?;
            progress::say(&report.table());
            report.mistakes
        }
        Command::Crowd(options) => {
            let report = crowd::run(options).await?;
            report.write(out)?;
            progress::say(&report.table());
            report.mistakes
        }
    };
    progress::say(&format!("written to {}", out.display()));
    Ok(mistakes.is_empty())
}

fn measure(options: &Options) -> ExitCode {
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(perform(&options.command));
            runtime.shutdown_timeout(ABANDON_LIMIT);
            outcome
        });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            progress::say(&format!("saga-bench: {error:#}"));
            ExitCode::from(2)
        }
    }
}
