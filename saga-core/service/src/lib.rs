//! The runtime of every process of this project: configuration, command line, telemetry, HTTP shell, health, startup and
//! shutdown. A service implements [`Service`]; its `main` is `saga_service::main::<TheService>()`.
//! The standalone mode runs the same services in one process.

pub mod cli;
pub mod clock;
pub mod config;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod startup;
pub mod telemetry;

mod service;

pub use cli::main;
pub use service::{Service, ServiceConfig};
