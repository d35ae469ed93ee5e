//! The smallest service: a `main` and one route. The tests start the example as a process.

use saga_postgres::PostgresConfig;
use saga_service::{
    Service, ServiceConfig,
    config::ConfigError,
    health::HealthRegistry,
    http::{self, HttpConfig, RequestContext},
    lifecycle::Shutdown,
    telemetry::LogConfig,
};
use serde::{Deserialize, Serialize};
use std::{process::ExitCode, time::Duration};
use tokio::net::TcpListener;
use utoipa_axum::{router::OpenApiRouter, routes};

struct Hello;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloConfig {
    http: HttpConfig,
    log: LogConfig,
    /// The delay before each answer, milliseconds.
    delay_ms: u64,
    /// Spawns a task that never ends, so that a drain runs into its deadline.
    stubborn: bool,
}

impl ServiceConfig for HelloConfig {
    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn postgres(&self) -> Option<&PostgresConfig> {
        None
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.delay_ms > self.http.request_timeout_ms {
            return Err(ConfigError::new("delay_ms exceeds http.request_timeout_ms"));
        }
        Ok(())
    }
}

/// Says hello after `delay_ms`.
#[utoipa::path(get, path = "/hello", responses((status = 200, body = String)))]
async fn hello(
    axum::Extension(delay): axum::Extension<Duration>,
    context: RequestContext,
) -> String {
    tokio::time::sleep(delay).await;
    format!("hello {}", context.correlation_id)
}

impl Service for Hello {
    const NAME: &'static str = "hello";
    const DEFAULTS: &'static str = r#"
delay_ms = 0
stubborn = false

[http]
listen = "127.0.0.1:0"
allowed_hosts = []
body_limit_bytes = 65536
request_timeout_ms = 30000
cors_origins = []

[log]
format = "human"
filter = "info"
"#;
    type Config = HelloConfig;

    async fn migrate(_: &HelloConfig) -> anyhow::Result<()> {
        tracing::info!("migrated");
        Ok(())
    }

    async fn check_migrations(_: &HelloConfig) -> anyhow::Result<()> {
        anyhow::bail!("the database lacks migration 1")
    }

    async fn run(
        config: HelloConfig,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        if config.stubborn {
            shutdown.spawn("stubborn", std::future::pending());
        }
        let delay = Duration::from_millis(config.delay_ms);
        let api = OpenApiRouter::new()
            .routes(routes!(hello))
            .layer(axum::Extension(delay));
        http::serve(
            &config.http,
            listener,
            api,
            "Hello",
            HealthRegistry::default(),
            shutdown,
        )
        .await
    }
}

fn main() -> ExitCode {
    saga_service::main::<Hello>()
}
