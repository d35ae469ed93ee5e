//! The whole system in one command: a private Postgres and a private Kafka as child processes, and the four services in
//! this process. The services are the same as on a cluster, with other addresses.
//!
//! ```text
//! signals ─▶ lock, ports ─▶ Postgres ∥ Kafka ─▶ databases, roles, topics ─▶ the four services ─▶ demo stock ─▶ banner
//!
//! data directory/  instance.lock  postgres/  kafka/  config/<service>.toml
//! ```
//!
//! Whatever of it has been started is stopped in the other order, at whichever point a Ctrl-C or a failure comes:
//! services drain and leave their consumer groups while Kafka and Postgres still answer.

mod banner;
mod options;
mod provision;
mod services;
mod system;

use clap::Parser;
use options::Options;
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    match system::main(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads standard error there is nobody to tell.
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
