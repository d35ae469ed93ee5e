//! How fast the whole of it is, and what a saga costs.
//!
//! ```text
//!  options ─▶ session ─▶ system: Postgres, Kafka, four services, each a process
//!     run ─────┤   scenarios, one after the other
//!     soak ────┤   for long, and while old partitions go
//!     scale ───┤   with more processes and partitions
//!     flat ────┤   with and without a history of millions
//!     crowd ───┤   while a crowd of sagas waits for a dead participant
//!              │   (all: each of these)
//!              ├──▶ scenario: what is ordered, and how it must end
//!              ├──▶ stage: load (client, watch) and measure (CPU, memory, write-ahead log, bytes), at the same time
//!              ├──▶ floor: what the machine allows for the same sagas
//!              ├──▶ check: what stands in the databases adds up
//!              └──▶ report: JSON, a table, plots
//! ```
//!
//! With `SAGA_E2E_SERVICE` set it is that service: this is how it starts what it measures.

mod all;
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

use all::AllOptions;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use options::{Command, Measurement, Options};
use report::Findings;
use saga_e2e::serve::named_service;
use session::Interrupted;
use std::{fmt::Write, fs, process::ExitCode, time::Duration};

/// After everything has been stopped, how long a thread of the load generator may still run.
const ABANDON_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    named_service().unwrap_or_else(|| measure(&Options::parse()))
}

/// Whether every result is right.
async fn perform(command: &Command) -> Result<bool> {
    match command {
        Command::One(measurement) => Ok(take(measurement.clone()).await?.mistakes().is_empty()),
        Command::All(options) => take_all(options).await,
    }
}

async fn take(measurement: Measurement) -> Result<Box<dyn Findings>> {
    let measurement = measurement.limited();
    let findings: Box<dyn Findings> = match &measurement {
        Measurement::Run(options) => Box::new(run::run(options).await?),
        Measurement::Soak(options) => Box::new(soak::soak(options).await?),
        Measurement::Scale(options) => Box::new(scale::scale(options).await?),
        Measurement::Flat(options) => Box::new(flat::run(options).await?),
        Measurement::Crowd(options) => Box::new(crowd::run(options).await?),
    };
    let out = &measurement.servers().out;
    findings.write(out)?;
    progress::say(&findings.table());
    progress::say(&format!("written to {}", out.display()));
    Ok(findings)
}

/// What was found stands there as soon as it is found. A measurement that fails keeps no other from being made.
async fn take_all(options: &AllOptions) -> Result<bool> {
    if options.has_given_servers() {
        progress::say("flat is left out: it needs two systems, and the given servers hold one");
    }
    let together = options.servers.out.join("bench.md");
    let (mut text, mut right, mut failed) = (String::new(), true, Vec::new());
    for (name, measurement) in options.measurements()? {
        progress::say(&format!("# {name}"));
        let found = match take(measurement).await {
            Ok(findings) => {
                right &= findings.mistakes().is_empty();
                findings.table()
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                progress::say(&format!("FAILED: {error:#}"));
                failed.push(name);
                format!("FAILED: {error:#}\n")
            }
        };
        writeln!(text, "# {name}\n\n{found}")?;
        fs::create_dir_all(&options.servers.out)
            .and_then(|()| fs::write(&together, &text))
            .with_context(|| format!("writing {}", together.display()))?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(right)
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
