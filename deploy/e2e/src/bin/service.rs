//! Runs one of the services for the end-to-end tests; see [`saga_harness::serve`].

use std::process::ExitCode;

fn main() -> ExitCode {
    saga_harness::serve::named_service().unwrap_or_else(|| ExitCode::from(2))
}
