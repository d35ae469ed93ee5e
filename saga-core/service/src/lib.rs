//! How a process of this project runs: configuration, command line, telemetry, HTTP shell, health, Postgres pools,
//! start, shutdown. A service implements [`Service`]; its `main` is `saga_service::main::<TheService>()`. The standalone
//! mode runs the same services in one process.

pub mod cli;
pub mod clock;
pub mod config;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod postgres;
pub mod startup;
pub mod telemetry;

use lifecycle::Shutdown;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;

pub use cli::main;

/// Rows, records and JSON are many small pieces that one thread makes and another frees: with the system's allocator a
/// sixth of all the system's time went into it (`deploy/bench`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One service: what `main`, the standalone mode and the tests need to start the real thing.
pub trait Service: Send + Sync + 'static {
    /// `order-svc`.
    const NAME: &'static str;
    /// The commented example file; it holds every key with its default, except what has none.
    const DEFAULTS: &'static str;
    /// What `--help` says besides, of commands that the binary reads itself.
    const HELP: &'static str = "";
    /// Strong types; unknown keys are refused.
    type Config: ServiceConfig;

    /// Brings the database up to date (`migrate` subcommand, `--migrate=auto`).
    fn migrate(config: &Self::Config) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Fails if the database is not up to date (`--migrate=check`).
    fn check_migrations(config: &Self::Config) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Serves until `shutdown`, then drains.
    fn run(
        config: Self::Config,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What every service's configuration has.
pub trait ServiceConfig: DeserializeOwned + Serialize + Clone + Send + Sync + 'static {
    fn http(&self) -> &http::HttpConfig;
    fn log(&self) -> &telemetry::LogConfig;
    /// The database of [`Service::migrate`], which a start waits for; `None`: it has none.
    fn postgres(&self) -> Option<&postgres::PostgresConfig>;
    /// Checks across fields; the message names both.
    fn check(&self) -> Result<(), config::ConfigError>;
}
