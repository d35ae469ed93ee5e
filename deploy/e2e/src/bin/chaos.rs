//! `cargo run -p saga-e2e --bin chaos -- --help`. With `SAGA_E2E_SERVICE` set it is that service: this is how it starts
//! the processes that it hurts.

use clap::Parser;
use saga_e2e::chaos::{self, Options};
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    match std::env::var("SAGA_E2E_SERVICE").as_deref() {
        Ok("orchestrator") => saga_service::main::<orchestrator::Orchestrator>(),
        Ok("order-svc") => saga_service::main::<order_svc::OrderService>(),
        Ok("inventory-svc") => saga_service::main::<inventory_svc::InventoryService>(),
        Ok("payment-svc") => saga_service::main::<payment_svc::PaymentService>(),
        Ok(_) | Err(_) => run(&Options::parse()),
    }
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
