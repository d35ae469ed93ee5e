use clap::Parser;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    sagactl::run(sagactl::Cli::parse()).await
}
