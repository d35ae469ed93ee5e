//! What tests of this workspace share.
//!
//! [`environment`] gives real servers: a Postgres and a Kafka for each test binary, as containers or as local processes.
//! [`saga_test`] tells sagas as sentences, without any server. [`store`], [`participant`] and [`service`] are the set-up
//! of a service's tests, from its tables to the whole of it. [`conformance`] tries whether a participant, in whatever
//! language, keeps the contract; [`contract`] has the promises of stores and logs, which real and simulated ones must keep.

pub mod conformance;
pub mod contract;
pub mod environment;
pub mod metrics;
pub mod participant;
pub mod saga_test;
pub mod service;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store;

/// An HTTP client for tests. `reqwest::Client::new` panics in this workspace until the process has chosen who does its
/// cryptography, even if all it ever speaks is plain HTTP.
pub fn http_client() -> reqwest::Client {
    saga_servers::install_crypto_provider();
    // A pooled connection belongs to the runtime it was made on, and each test has its own.
    reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .expect("a plain client can be built")
}
