//! The system as its users see it: orders over HTTP, records in Kafka, rows in Postgres.

mod cancel;
mod conformance;
mod definitions;
mod duplicates;
mod faults;
mod lost_saga;
mod messages;
mod node;
mod orders;
mod own_saga;
mod parking;
mod poison;
mod quota;
mod restore;
mod retention;
mod second_saga;
mod silence;
mod strangers;

use saga_harness::System;
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

const BINARY: &str = env!("CARGO_BIN_EXE_saga-e2e-service");

async fn shared() -> (&'static System, RwLockReadGuard<'static, ()>) {
    System::shared(BINARY).await
}

async fn alone() -> (&'static System, RwLockWriteGuard<'static, ()>) {
    System::alone(BINARY).await
}

type TestResult = anyhow::Result<()>;

/// The name of the shipped definition `place-order-payment-first`.
const PAYMENT_FIRST: &str = saga_contracts::definition::PLACE_ORDER_PAYMENT_FIRST;

/// Defines a test with its own runtime, which ends with the test. No state of the system depends on a runtime: clients
/// are created per call, and processes are children of the harness.
macro_rules! e2e {
    ($(#[$meta:meta])* async fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> crate::TestResult $body
    };
}
pub(crate) use e2e;
