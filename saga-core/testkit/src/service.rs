//! What tests of a service share: the service as `main` runs it, on a port of its own, and its API without a socket.

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use saga_service::{Service, config, lifecycle::Shutdown};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tower::ServiceExt;

/// Far above what a service takes to drain.
const PATIENCE: Duration = Duration::from_mins(1);
/// Of an answer.
const BODY_MAX_BYTES: usize = 1 << 20;

/// A service that runs inside the test's process.
pub struct Running {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    ended: JoinHandle<Result<()>>,
}

impl Running {
    /// Migrates the database that `overrides`, in TOML over the defaults, names, and starts.
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

    /// Drains it, as after a SIGTERM.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.soft.cancel();
        timeout(PATIENCE, self.ended)
            .await
            .context("the service stops")??
    }
}

/// The JSON that an API answers. A client's error must be a problem that names its own status.
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

/// [`ask`]s for `path`.
pub async fn get(api: &Router, path: &str) -> Result<(StatusCode, Value)> {
    ask(api, Request::get(path).body(Body::empty())?).await
}
