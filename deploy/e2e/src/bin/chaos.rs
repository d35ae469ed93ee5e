//! `cargo run -p saga-e2e --bin chaos -- --help`. With `SAGA_E2E_SERVICE` set it is that service: this is how it starts
//! the processes that it hurts.

use clap::Parser;
use saga_e2e::{
    chaos::{self, Options},
    serve::named_service,
};
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
            // Nobody is left to tell.
            drop(writeln!(std::io::stderr(), "chaos: {error:#}"));
            ExitCode::from(2)
        }
    }
}
