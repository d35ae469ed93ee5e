//! What every implementation of a store and of a log must do.
//!
//! Postgres and Kafka are one implementation of each, the simulation's are the other. Both run the functions of this
//! module, each of which is one promise, so that the simulation cannot drift from what it stands for.
//!
//! | promises of | are | on real servers | in the simulation |
//! |---|---|---|---|
//! | a participant's database | [`participant`] | `saga-messaging`, `tests/participant` | `simulation` |
//! | the engine's database | `saga` | `orchestrator`, `tests/servers` | `simulation` |
//! | the outbox's table | [`outbox`] | `saga-messaging`, `tests/kafka` | `simulation` |
//! | a log | [`log`] | `saga-messaging`, `tests/kafka` | `simulation` |
//!
//! Each promise is an `async fn(&impl …Bench)`; a bench makes stores or logs of the implementation under test. The macros
//! [`participant_store_contract!`](crate::participant_store_contract), [`outbox_store_contract!`](crate::outbox_store_contract),
//! [`log_contract!`](crate::log_contract) and `saga_store_contract!` make one test of each, named as the promise is.

#![expect(
    clippy::unwrap_used,
    reason = "a promise that is not kept is a test that fails"
)]

pub mod log;
pub mod outbox;
pub mod participant;
#[cfg(feature = "simulation")]
pub mod saga;

use std::{pin::Pin, time::Duration};
use tokio::time::timeout;

/// What has not happened after this long does not happen: far more than a statement on an idle server takes.
const NOT_YET: Duration = Duration::from_millis(300);
/// Far above what anything here takes, so that only what never happens fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Panics if `work` ends: it has to wait for somebody.
async fn must_wait<T: std::fmt::Debug>(mut work: Pin<&mut impl Future<Output = T>>, what: &str) {
    if let Ok(ended) = timeout(NOT_YET, work.as_mut()).await {
        panic!("{what} had to wait, but ended with {ended:?}");
    }
}

/// What `work` comes to.
async fn must_end<T>(work: impl Future<Output = T>, what: &str) -> T {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}
