//! The system as its users meet it: orders over HTTP, records in Kafka, rows in Postgres.

mod cancel;
mod conformance;
mod definitions;
mod duplicates;
mod faults;
mod messages;
mod node;
mod orders;
mod own_saga;
mod parking;
mod poison;
mod retention;
mod startup;

use saga_e2e::System;
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

const BINARY: &str = env!("CARGO_BIN_EXE_saga-e2e-service");

async fn shared() -> (&'static System, RwLockReadGuard<'static, ()>) {
    System::shared(BINARY).await
}

async fn alone() -> (&'static System, RwLockWriteGuard<'static, ()>) {
    System::alone(BINARY).await
}

type TestResult = anyhow::Result<()>;

/// `place-order-payment-first`.
const PAYMENT_FIRST: &str = saga_contracts::definition::PLACE_ORDER_PAYMENT_FIRST;

/// Runs on a runtime of its own that outlives no test: clients are made per call, processes are children of the
/// harness.
macro_rules! e2e {
    ($(#[$meta:meta])* async fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> crate::TestResult $body
    };
}
pub(crate) use e2e;
