//! The promises that every implementation of a store and of a log must keep.
//!
//! Postgres and Kafka are one implementation, the simulation is the other. Both run the functions of this module, each
//! of which tests one promise, so that the simulation behaves like the real servers.
//!
//! | promises of | are | on real servers | in the simulation |
//! |---|---|---|---|
//! | a participant's database | [`participant`] | `saga-messaging`, `tests/participant` | `saga-simulation` |
//! | the outbox's table | [`outbox`] | `saga-messaging`, `tests/kafka` | `saga-simulation` |
//! | a log | [`log`] | `saga-messaging`, `tests/kafka` | `saga-simulation` |
//! | the engine's database | `saga_simulation::store_contract` | `orchestrator`, `tests/servers` | `saga-simulation` |
//!
//! Each promise is an `async fn(&impl …Bench)`; a bench makes stores or logs of the implementation under test. The
//! macros [`participant_store_contract!`](crate::participant_store_contract),
//! [`outbox_store_contract!`](crate::outbox_store_contract), [`log_contract!`](crate::log_contract) and
//! `saga_store_contract!` make one test of each promise, with the promise's name.

#![expect(
    clippy::unwrap_used,
    reason = "a promise that is not kept is a test that fails"
)]

pub mod log;
pub mod outbox;
pub mod participant;

use std::{pin::Pin, time::Duration};
use tokio::time::timeout;

/// A future that has not ended after this time is blocked: this is far more than a statement on an idle server takes.
const NOT_YET: Duration = Duration::from_millis(300);
/// Limit for everything else, far above the usual time, so that only a future that never ends fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Panics if `work` ends: it must be blocked by another transaction.
async fn must_wait<T: std::fmt::Debug>(mut work: Pin<&mut impl Future<Output = T>>, what: &str) {
    if let Ok(ended) = timeout(NOT_YET, work.as_mut()).await {
        panic!("{what} had to wait, but ended with {ended:?}");
    }
}

/// Returns the result of `work`; panics if it takes too long.
pub async fn must_end<T>(work: impl Future<Output = T>, what: &str) -> T {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}
