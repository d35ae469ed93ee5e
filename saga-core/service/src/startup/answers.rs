//! What a service answers before it serves.

use crate::{
    health::HealthRegistry,
    http::{self, HttpConfig},
    lifecycle::Shutdown,
};
use anyhow::Context;
use std::{os::fd::AsFd, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a client that has sent half a request may hold up the start. Its connection stays.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Answers {
    /// Dropped with a start that failed, too.
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Answers {
    /// Answers on a duplicate of `listener`: clients that connect while one is closed and the other not yet asked wait in
    /// the queue that both share.
    pub fn begin(
        config: &HttpConfig,
        name: &'static str,
        listener: &TcpListener,
        health: HealthRegistry,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let listener = duplicate(listener).context("the listener cannot be shared")?;
        let stop = shutdown.soft.child_token();
        let (config, whole, until) = (config.clone(), shutdown.clone(), stop.clone());
        let task = shutdown.spawn("answers of the start", async move {
            let answering = http::serve_start(&config, listener, name, health, whole, until);
            if let Err(error) = answering.await {
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "nothing is answered until the service has started"
                );
            }
        });
        let stop = CancellationToken::drop_guard(stop);
        Ok(Self { stop, task })
    }

    /// Returns when nothing is accepted here any more.
    pub async fn end(self) {
        drop(self.stop);
        if timeout(HAND_OVER_LIMIT, self.task).await.is_err() {
            tracing::debug!("a connection from before the start is still open");
        }
    }
}

fn duplicate(listener: &TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listener.as_fd().try_clone_to_owned()?.into())
}
