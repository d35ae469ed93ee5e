//! The four services as real child processes, on the Kafka and Postgres that [`saga_test_support`] provides (containers or
//! local processes), and a client that calls them as a user does. The end-to-end tests, chaos and the bench use it.
//!
//! A test binary starts one system. Tests that stop or kill parts of the system hold it exclusively
//! ([`System::alone`]); all other tests share it ([`System::shared`]).

pub mod client;
pub mod definition;
pub mod process;
pub mod random;
pub mod serve;
pub mod system;
pub mod topics;

pub use client::{Order, OrderRequest};
pub use system::{Service, System};
