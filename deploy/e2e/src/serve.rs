//! All four services behind one binary: the environment says which one a process is. The harness and chaos start their
//! processes this way, so that what runs is always what was just built.

use std::process::ExitCode;

/// Names the service; arguments and environment are that service's own.
pub const SERVICE_VARIABLE: &str = "SAGA_E2E_SERVICE";

/// Runs the named service to its end. `None` if none of ours is named.
pub fn named_service() -> Option<ExitCode> {
    match std::env::var(SERVICE_VARIABLE).as_deref() {
        Ok("orchestrator") => Some(saga_service::main::<orchestrator::Orchestrator>()),
        Ok("order-svc") => Some(saga_service::main::<order_svc::OrderService>()),
        Ok("inventory-svc") => Some(saga_service::main::<inventory_svc::InventoryService>()),
        Ok("payment-svc") => Some(saga_service::main::<payment_svc::PaymentService>()),
        Ok(_) | Err(_) => None,
    }
}
