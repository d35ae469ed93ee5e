//! The harness of the end-to-end tests: the four services as real processes, on the Kafka and Postgres that
//! [`saga_testkit`] provides (containers or local processes), and a client that talks to them as a user would.
//!
//! One system a test binary. Tests that disturb it (stop a service, kill the orchestrator) take it alone, all others
//! share it; see [`System::shared`] and [`System::alone`].

pub mod chaos;
pub mod client;
pub mod definition;
pub mod process;
pub mod serve;
pub mod system;
pub mod topics;

pub use client::{Order, OrderRequest};
pub use system::{Service, System};
