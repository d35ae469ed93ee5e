//! The order-svc process; see `--help`.

use std::process::ExitCode;

/// The allocator is mimalloc because many small allocations of one thread are freed by another: see
/// `deploy/bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    saga_service::main::<order_svc::OrderService>()
}
