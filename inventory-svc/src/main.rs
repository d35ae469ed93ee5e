//! The inventory-svc process.

/// The allocator is mimalloc because many small allocations of one thread are freed by another: see
/// `deploy/bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    saga_service::main::<inventory_svc::InventoryService>()
}
