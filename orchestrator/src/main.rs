//! The orchestrator as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, files)) if first == "validate" => orchestrator::validate::run(files),
        Some(_) | None => saga_service::main::<orchestrator::Orchestrator>(),
    }
}
