//! Runs the whole system with one command: a private Postgres and a private Kafka as child processes, and the four
//! services in this process. The services are the same as on a cluster, with other addresses.
//!
//! ```text
//! signals ─▶ lock, ports ─▶ Postgres ∥ Kafka ─▶ databases, roles, topics ─▶ the four services ─▶ demo stock ─▶ banner
//!
//! data directory/  instance.lock  postgres/  kafka/  config/<service>.toml
//! ```
//!
//! Everything that has been started is stopped in reverse order, whenever a Ctrl-C or a failure comes: services drain
//! and leave their consumer groups while Kafka and Postgres still answer.

mod banner;
mod options;
mod provision;
mod services;
mod system;

use clap::Parser;
use options::Options;
use std::{io::Write, process::ExitCode};

/// Many small allocations that one thread makes are freed by another thread: see `deploy/bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match system::main(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error cannot be written, there is nowhere else to report the error.
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
