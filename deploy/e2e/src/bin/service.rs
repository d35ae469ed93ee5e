//! All four services behind one binary, so that the tests always run what was just built:
//! `SAGA_E2E_SERVICE` names the service, arguments and environment are that service's own.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::var("SAGA_E2E_SERVICE").as_deref() {
        Ok("orchestrator") => saga_service::main::<orchestrator::Orchestrator>(),
        Ok("order-svc") => saga_service::main::<order_svc::OrderService>(),
        Ok("inventory-svc") => saga_service::main::<inventory_svc::InventoryService>(),
        Ok("payment-svc") => saga_service::main::<payment_svc::PaymentService>(),
        Ok(_) | Err(_) => ExitCode::from(2),
    }
}
