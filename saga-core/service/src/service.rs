//! The interface of a service, and the parts that every service's configuration has.

use crate::{config::ConfigError, http::HttpConfig, lifecycle::Shutdown, telemetry::LogConfig};
use saga_postgres::PostgresConfig;
use serde::{Serialize, de::DeserializeOwned};
use std::future::ready;
use tokio::net::TcpListener;

/// A service, as `main`, the standalone mode and the tests start it.
pub trait Service: Send + Sync + 'static {
    /// The service's name, such as `order-svc`.
    const NAME: &'static str;
    /// The commented example file. It holds every key with its default, except the keys that have no default.
    const DEFAULTS: &'static str;
    /// Additional text for `--help`, about commands that the binary itself handles.
    const HELP: &'static str = "";
    /// The service's configuration. Unknown keys are refused.
    type Config: ServiceConfig;

    /// Brings the database up to date (`migrate` subcommand, `--migrate=auto`).
    fn migrate(config: &Self::Config) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Fails if the database is not up to date (`--migrate=check`).
    fn check_migrations(config: &Self::Config) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Assigns the service's consumer group to the database of this configuration (`adopt-group` subcommand), and
    /// returns a text that says what was changed. Without `confirmed`, fails with a text that says what would be
    /// changed. Returns `None` if the service is in no group.
    fn adopt(
        _config: &Self::Config,
        _confirmed: bool,
    ) -> impl Future<Output = Option<anyhow::Result<String>>> + Send {
        ready(None)
    }

    /// Serves until `shutdown`, then drains.
    fn run(
        config: Self::Config,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// The parts that every service's configuration has.
pub trait ServiceConfig: DeserializeOwned + Serialize + Clone + Send + Sync + 'static {
    fn http(&self) -> &HttpConfig;
    fn log(&self) -> &LogConfig;
    /// Returns the database of [`Service::migrate`], which startup waits for, or `None` if the service has no database.
    fn postgres(&self) -> Option<&PostgresConfig>;
    /// Checks rules across fields. The message names both fields.
    fn check(&self) -> Result<(), ConfigError>;
}
