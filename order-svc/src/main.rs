//! order-svc as a process of its own; see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    saga_service::main::<order_svc::OrderService>()
}
