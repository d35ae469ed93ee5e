//! The chaos program: `cargo run -p saga-e2e --bin chaos -- --help`. If `SAGA_E2E_SERVICE` is set, the program runs as
//! that service instead: this is how chaos starts the processes that it injects faults into.

use clap::Parser;
use saga_e2e::chaos::{self, Options};
use saga_harness::serve::named_service;
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    named_service().unwrap_or_else(|| run(&Options::parse()))
}

fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new();
    let outcome = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(chaos::run(options)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // If standard error cannot be written, there is nowhere else to report the error.
            drop(writeln!(std::io::stderr(), "chaos: {error:#}"));
            ExitCode::from(2)
        }
    }
}
