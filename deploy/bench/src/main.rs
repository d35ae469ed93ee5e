//! Measures how fast the whole system is, and what a saga costs.
//!
//! ```text
//!  options ─▶ session ─▶ system: Postgres, Kafka, four services, each a process
//!     run ─────┤   scenarios, one after the other
//!     soak ────┤   under load for long, and while old partitions are dropped
//!     scale ───┤   with more processes and partitions
//!     history ─┤   with and without a history of millions of ended sagas
//!     backlog ─┤   while a backlog of sagas waits for a dead participant
//!              │   (all: each of these)
//!              ├──▶ scenario: which orders are sent, and how each must end
//!              ├──▶ workload, bench: one stage after the other; load (client, watch) and measure (CPU, memory, write-ahead log,
//!              │    bytes) at the same time
//!              ├──▶ baseline: what the machine allows for the same sagas
//!              ├──▶ check: the contents of the databases add up
//!              └──▶ report: sections of tables, rendered as JSON, as Markdown and for a terminal; charts
//! ```
//!
//! If `SAGA_E2E_SERVICE` is set, the program runs as that service instead. The bench starts the services that it
//! measures in this way.

mod backlog;
mod baseline;
mod bench;
mod check;
mod groups;
mod history;
mod kafka;
mod load;
mod measure;
mod middle;
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
mod workload;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use options::{Command, Options, Shared, Study};
use report::{Report, Style};
use saga_harness::serve::named_service;
use session::Interrupted;
use std::{fmt::Write, fs, process::ExitCode, time::Duration};

/// How long threads of the load generator may still run after everything has been stopped.
const ABANDON_LIMIT: Duration = Duration::from_secs(2);

/// The studies in the order in which `all` performs them.
const ALL: [&str; 5] = ["run", "scale", TWO_SYSTEMS, "backlog", "soak"];
/// The study that needs two systems.
const TWO_SYSTEMS: &str = "history";

/// The services free on one thread many small allocations that another thread made: see `deploy/bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    named_service().unwrap_or_else(|| measure(Options::parse()))
}

/// Performs the command. Returns `false` if a result is broken.
async fn perform(options: Options) -> Result<bool> {
    match options.command {
        Command::One(study) => Ok(take(study, &options.shared).await?.mistakes.is_empty()),
        Command::All => take_all(&options.shared).await,
    }
}

/// Performs a study, and writes its report.
async fn take(study: Study, shared: &Shared) -> Result<Report> {
    let (study, shared) = study.resolved(shared)?;
    let report = match &study {
        Study::Run(own) => Box::pin(run::run(&shared, own)).await?,
        Study::Scale(own) => Box::pin(scale::run(&shared, own)).await?,
        Study::History(own) => Box::pin(history::run(&shared, own)).await?,
        Study::Backlog(own) => Box::pin(backlog::run(&shared, own)).await?,
        Study::Soak(own) => Box::pin(soak::run(&shared, own)).await?,
    };
    report.write(&shared.out)?;
    progress::say(&report.render(Style::Terminal));
    progress::say(&format!("written to {}", shared.out.display()));
    Ok(report)
}

/// Performs all studies, each on a fresh system, and adds the report of each to `bench.md` as soon as it ends. A study
/// that fails does not keep the others from being performed.
async fn take_all(shared: &Shared) -> Result<bool> {
    let together = shared.out.join("bench.md");
    let (mut text, mut right, mut failed) = (String::new(), true, Vec::new());
    for name in studies(shared) {
        progress::say(&format!("# {name}"));
        let own = Shared {
            out: shared.out.join(name),
            ..shared.clone()
        };
        let found = match take(Study::named(name)?, &own).await {
            Ok(report) => {
                right &= report.mistakes.is_empty();
                report.render(Style::Markdown)
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                progress::say(&format!("FAILED: {error:#}"));
                failed.push(name);
                format!("FAILED: {error:#}\n")
            }
        };
        writeln!(text, "# {name}\n\n{found}")?;
        fs::create_dir_all(&shared.out)
            .and_then(|()| fs::write(&together, &text))
            .with_context(|| format!("writing {}", together.display()))?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(right)
}

/// Returns the names of all studies that the servers allow.
fn studies(shared: &Shared) -> Vec<&'static str> {
    let mut all = ALL.to_vec();
    if shared.has_given_servers() {
        progress::say(&format!(
            "{TWO_SYSTEMS} is left out: it needs two systems, and the given servers hold one"
        ));
        all.retain(|name| *name != TWO_SYSTEMS);
    }
    all
}

fn measure(options: Options) -> ExitCode {
    let outcome = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(perform(options));
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn shared(arguments: &[&str]) -> Shared {
        let words = ["saga-bench", "all"].iter().chain(arguments);
        Options::try_parse_from(words).expect("options").shared
    }

    #[test]
    fn all_are_all_studies() {
        let command = Options::command();
        let names = command.get_subcommands().map(clap::Command::get_name);
        let names: Vec<&str> = names.collect();
        let all: Vec<&str> = ALL.into_iter().chain(["all"]).collect();
        assert_eq!(names, all);
        for name in studies(&shared(&[])) {
            assert!(Study::named(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn given_servers_hold_one_system() {
        let found = studies(&shared(&["--kafka-brokers", "somewhere:9092"]));
        assert!(!found.contains(&TWO_SYSTEMS));
        assert_eq!(found.len(), ALL.len() - 1);
    }

    #[test]
    fn each_study_has_the_arguments_of_all() {
        let given = shared(&["--smoke", "--seed", "7", "--time-limit", "100"]);
        for name in ALL {
            let study = Study::named(name).expect("a study");
            let (_, own) = study.resolved(&given).expect("its arguments");
            assert_eq!(
                (own.smoke, own.seed, own.time_limit),
                (true, 7, Some(100)),
                "{name}"
            );
        }
    }
}
