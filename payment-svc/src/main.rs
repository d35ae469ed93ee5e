//! payment-svc as a process of its own.

fn main() -> std::process::ExitCode {
    saga_service::main::<payment_svc::PaymentService>()
}
