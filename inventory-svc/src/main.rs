//! inventory-svc as a process of its own.

fn main() -> std::process::ExitCode {
    saga_service::main::<inventory_svc::InventoryService>()
}
