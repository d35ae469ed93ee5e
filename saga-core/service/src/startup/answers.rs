//! Answers HTTP requests while a service is starting.

use crate::{
    health::HealthRegistry,
    http::{self, HttpConfig},
    lifecycle::Shutdown,
};
use anyhow::Context;
use std::{os::fd::AsFd, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The time for which a client that has sent half a request may delay the start, or its stop. After that the connection
/// stays open, but nothing waits for it.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Answers {
    /// Dropped, too, if the start fails.
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Answers {
    /// Starts answering on a duplicate of `listener`. Both share one accept queue: clients that connect after one
    /// listener is closed and before the other accepts wait in that queue.
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
            let limit = late(until.clone());
            let answering = http::serve_start(&config, listener, name, health, whole, until);
            tokio::select! {
                ended = answering => if let Err(error) = ended {
                    tracing::warn!(
                        error = &*error as &dyn std::error::Error,
                        "HTTP requests are not answered until the service has started"
                    );
                },
                () = limit => tracing::debug!("a connection from before the start is still open"),
            }
        });
        let stop = CancellationToken::drop_guard(stop);
        Ok(Self { stop, task })
    }

    /// Returns when this task accepts no more connections.
    pub async fn end(self) {
        drop(self.stop);
        // `Shutdown::spawn` catches and logs a panic of the task.
        self.task.await.ok();
    }
}

async fn late(stop: CancellationToken) {
    stop.cancelled().await;
    sleep(HAND_OVER_LIMIT).await;
}

fn duplicate(listener: &TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listener.as_fd().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    /// Far above the time that anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);
    const ASKED: &[u8] = b"GET /orders HTTP/1.1\r\nhost: localhost\r\n";
    const REST: &[u8] = b"\r\n";

    /// Begins a start that answers requests, with a client that has sent half a request.
    async fn begun() -> (Answers, Shutdown, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (shutdown, health) = (Shutdown::new(), HealthRegistry::default());
        let config = HttpConfig {
            listen: address,
            allowed_hosts: Vec::new(),
            body_limit_bytes: 1_000,
            request_timeout_ms: 1_000,
            cors_origins: Vec::new(),
        };
        let answers = Answers::begin(&config, "shop", &listener, health, &shutdown);
        let mut half = TcpStream::connect(address).await.expect("connect");
        half.write_all(ASKED).await.expect("half a request");
        // Connections are accepted in order: once the second is answered, the first is accepted.
        let mut whole = TcpStream::connect(address).await.expect("connect");
        whole.write_all(ASKED).await.expect("write");
        answered(&mut whole).await;
        (answers.expect("it answers"), shutdown, half)
    }

    /// Sends the rest of the request and checks the answer.
    async fn answered(client: &mut TcpStream) {
        client.write_all(REST).await.expect("write");
        let mut answer = String::new();
        let read = timeout(PATIENCE, client.read_to_string(&mut answer)).await;
        read.expect("in time").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }

    #[tokio::test]
    async fn half_a_request_from_before_the_start_keeps_no_task() {
        let (answers, shutdown, mut half) = begun().await;
        timeout(PATIENCE, answers.end())
            .await
            .expect("the service can serve");
        assert!(shutdown.tasks.is_empty());
        answered(&mut half).await;
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_stop_of_a_start() {
        let (_answers, shutdown, _half) = begun().await;
        assert!(shutdown.drain(PATIENCE).await, "it drains in time");
    }
}
