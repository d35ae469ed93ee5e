//! All four services in one binary: an environment variable names the service that a process runs. The harness and
//! chaos start their processes this way, so that they always run the code that was just built.

use std::process::ExitCode;

/// The environment variable that names the service. Arguments and all other variables are those of the service itself.
pub const SERVICE_VARIABLE: &str = "SAGA_E2E_SERVICE";

/// Runs the service that [`SERVICE_VARIABLE`] names until it ends. Returns `None` if the variable names none of the
/// four services.
pub fn named_service() -> Option<ExitCode> {
    match std::env::var(SERVICE_VARIABLE).as_deref() {
        Ok("orchestrator") => Some(saga_service::main::<orchestrator::Orchestrator>()),
        Ok("order-svc") => Some(saga_service::main::<order_svc::OrderService>()),
        Ok("inventory-svc") => Some(saga_service::main::<inventory_svc::InventoryService>()),
        Ok("payment-svc") => Some(saga_service::main::<payment_svc::PaymentService>()),
        Ok(_) | Err(_) => None,
    }
}
