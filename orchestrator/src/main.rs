//! The orchestrator's binary.

use std::process::ExitCode;

/// mimalloc, because many small allocations of one thread are freed by another: see `deploy/bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, files)) if first == "validate" => orchestrator::validate::run(files),
        Some(_) | None => saga_service::main::<orchestrator::Orchestrator>(),
    }
}
