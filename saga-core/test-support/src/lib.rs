//! Shared set-up of this workspace's tests. No crate that ships depends on this crate.
//!
//! [`environment`] gives real servers: a Postgres and a Kafka for each test binary, as containers or as local
//! processes. [`store`], [`participant`] and [`service`] are the set-up of a service's tests, from its tables to the
//! whole service; [`migrations`] checks what it embeds. [`logs`] captures what a process logs. [`contract`] has the
//! promises that real and simulated stores and logs must keep. [`proxy`] is a TCP relay that can delay, hold back and
//! cut connections. [`quota`] limits a Kafka client.

pub mod contract;
pub mod environment;
pub mod logs;
pub mod metrics;
pub mod migrations;
pub mod participant;
pub mod proxy;
pub mod quota;
pub mod service;
pub mod store;

/// Returns an HTTP client for tests. `reqwest::Client::new` panics in this workspace until the process has installed a
/// cryptography provider, even if the client only speaks plain HTTP.
pub fn http_client() -> reqwest::Client {
    saga_servers::install_crypto_provider();
    // A pooled connection belongs to the runtime on which it was made, and each test has its own runtime.
    reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .expect("a plain client can be built")
}
