//! Shared set-up for tests of a service: the service as `main` runs it, on its own port, and its API without a socket.

use crate::environment::until;
use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use saga_service::{Service, config, lifecycle::Shutdown};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tower::ServiceExt;

/// Limit for draining, far above the time that a service takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// Maximum size of a response's body.
const BODY_MAX_BYTES: usize = 1 << 20;

/// A service that runs inside the test's process.
pub struct Running {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    ended: JoinHandle<Result<()>>,
}

impl Running {
    /// Migrates the service's database and starts the service. `overrides` is TOML over the defaults, and names the
    /// database.
    pub async fn start<S: Service>(overrides: &str) -> Result<Self> {
        let config = config::load::<S>(None, Some(overrides))?;
        S::migrate(&config).await?;
        S::check_migrations(&config).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, shutdown) = (listener.local_addr()?, Shutdown::new());
        let ended = tokio::spawn(S::run(config, listener, shutdown.clone()));
        Ok(Self {
            address,
            shutdown,
            ended,
        })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Drains the service, as after a SIGTERM.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.soft.cancel();
        timeout(PATIENCE, self.ended)
            .await
            .context("the service stops")??
    }
}

/// Starts the service with a database that is not the database of its `group`. Fails unless the service ends by itself,
/// and its failure names the group, the group's database `owner` (a URL), the service's own database, and the way out.
pub async fn refuses_another_database<S: Service>(
    overrides: &str,
    group: &str,
    owner: &str,
) -> Result<()> {
    let Running {
        shutdown, ended, ..
    } = Running::start::<S>(overrides).await?;
    // A service that drains after a failure may return the failure, or leave it in `shutdown`.
    drop(timeout(PATIENCE, ended).await.context("the service ends")?);
    let reason = shutdown.failure().context("it says why")?;
    let overrides: toml::Table = toml::from_str(overrides)?;
    let own = overrides["postgres"]["url"]
        .as_str()
        .context("a database")?;
    let (ours, theirs) = (identity(own).await?, identity(owner).await?);
    let named = format!("consumer group '{group}' belongs to database {theirs}");
    ensure!(
        reason.contains(&named) && reason.contains(&ours) && reason.contains("adopt-group"),
        "{reason}"
    );
    Ok(())
}

/// Returns the id of a service's database.
pub async fn identity(database: &str) -> Result<String> {
    let mut connection = PgConnection::connect(database).await?;
    let id = sqlx::query_scalar("SELECT id::text FROM database_identity")
        .fetch_one(&mut connection)
        .await?;
    Ok(id)
}

/// Returns the number of times that the service has noted its database's age in it.
pub async fn ticks(database: &str) -> Result<i64> {
    let mut connection = PgConnection::connect(database).await?;
    let ticks = sqlx::query_scalar("SELECT ticks FROM database_identity")
        .fetch_one(&mut connection)
        .await?;
    Ok(ticks)
}

/// Gives the service's consumer group to the database in `overrides`, as `adopt-group --yes` does, once the group has no
/// members any more.
pub async fn adopts_group<S: Service>(overrides: &str) -> Result<String> {
    let config = config::load::<S>(None, Some(overrides))?;
    let adopted = until("the group is adopted", PATIENCE, async || {
        let adopted = S::adopt(&config, true).await;
        adopted.context("it is in no consumer group")?
    });
    Ok(adopted.await)
}

/// Returns the status and the JSON of the API's response. A client error must be a problem that names its own status.
pub async fn ask(api: &Router, request: Request<Body>) -> Result<(StatusCode, Value)> {
    let response = api.clone().oneshot(request).await?;
    let (parts, body) = response.into_parts();
    let body: Value = serde_json::from_slice(&to_bytes(body, BODY_MAX_BYTES).await?)?;
    if parts.status.is_client_error() {
        assert_eq!(
            parts.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(body["status"], parts.status.as_u16());
    }
    Ok((parts.status, body))
}

/// Sends a GET for `path` with [`ask`].
pub async fn get(api: &Router, path: &str) -> Result<(StatusCode, Value)> {
    ask(api, Request::get(path).body(Body::empty())?).await
}
