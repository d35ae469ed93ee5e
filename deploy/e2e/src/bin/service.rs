//! The services of the end-to-end tests; see [`saga_e2e::serve`].

use std::process::ExitCode;

fn main() -> ExitCode {
    saga_e2e::serve::named_service().unwrap_or_else(|| ExitCode::from(2))
}
