//! Startup waits for Postgres and Kafka instead of exiting: a supervisor would only restart the process.
//!
//! ```text
//!  work ─▶ done ─▶ the start goes on
//!   ▲  └─▶ an outage     ─▶ warn, say so in /health/ready, pause ─┐      any other error ─▶ the start ends with it
//!   └────────────────────────────────────────────────────────────────┘      the soft stop ─▶ it ends, cleanly
//! ```
//!
//! Each server decides which errors say that it is unavailable ([`Server::is_unavailable`]). An error that waiting cannot fix,
//! such as a wrong password, ends the start at once.

mod answers;

use crate::health::{Awaited, HealthRegistry, Readiness};
use crate::{http::HttpConfig, lifecycle::Shutdown};
use answers::Answers;
use saga_core::retry::RetryPolicy;
use saga_postgres::{PostgresConfig, silence::limited};
use std::{
    error::Error,
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The pause between two tries. It is short, so that a server is used soon after it is back. It is random, so that
/// services that lost a server at the same time do not reconnect at the same time.
const PAUSE: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_delay_ms: 250,
    factor: 2.0,
    max_delay_ms: 5_000,
    jitter: 0.3,
};

/// The time after which an unfinished start answers HTTP. A normal start is over before that; a client that connects
/// meanwhile waits in the accept queue.
const ANSWER_AFTER: Duration = Duration::from_secs(2);

/// A server that a start needs.
#[derive(Clone, Debug)]
pub struct Server {
    /// The server's name: `postgres` or `kafka`.
    pub name: &'static str,
    /// The server's address, with secrets masked.
    pub place: String,
    /// Returns true if this error, one of a chain, says that the server is unavailable.
    pub is_unavailable: fn(&(dyn Error + 'static)) -> bool,
}

impl Server {
    /// Describes a database.
    pub fn postgres(config: &PostgresConfig) -> Self {
        Self {
            name: "postgres",
            place: config.place(),
            is_unavailable: saga_postgres::is_unavailable,
        }
    }

    /// Describes the brokers of a Kafka cluster. `is_unavailable` comes from the client library that talks to them.
    pub fn kafka(brokers: &str, is_unavailable: fn(&(dyn Error + 'static)) -> bool) -> Self {
        Self {
            name: "kafka",
            place: brokers.to_owned(),
            is_unavailable,
        }
    }

    /// Returns the first of `servers` that `error` says is unavailable.
    fn first_unavailable<'a>(servers: &'a [Self], error: &anyhow::Error) -> Option<&'a Self> {
        servers
            .iter()
            .find(|server| error.chain().any(|cause| (server.is_unavailable)(cause)))
    }
}

/// Tries `work` until it succeeds, and lists in `readiness` what it waits for. The caller marks the service as ready,
/// because only the caller knows when it is. Returns an error that none of `servers` explains, and `None` if `stop`
/// came first.
pub async fn until<T, W: Future<Output = anyhow::Result<T>>>(
    servers: &[Server],
    readiness: &Readiness,
    stop: &CancellationToken,
    mut work: impl FnMut() -> W,
) -> anyhow::Result<Option<T>> {
    let began = Instant::now();
    let seed = Uuid::new_v4().as_u64_pair().0;
    readiness.waits_for(servers.iter().map(|one| Awaited::new(one.name)).collect());
    for tries in 1_u32.. {
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            result = limited(work()) => result,
        };
        let error = match result {
            Ok(value) => {
                readiness.waits_for(Vec::new());
                if tries > 1 {
                    let waited_ms = began.elapsed().as_millis() as u64;
                    tracing::info!(tries, waited_ms, "the required servers are available");
                }
                return Ok(Some(value));
            }
            Err(error) => error,
        };
        let Some(server) = Server::first_unavailable(servers, &error) else {
            return Err(error);
        };
        let pause_ms = PAUSE.delay_ms(tries, seed.wrapping_add(u64::from(tries)));
        warn(server, &error, pause_ms);
        readiness.waits_for(vec![Awaited {
            detail: Some(format!("{error:#}")),
            ..Awaited::new(server.name)
        }]);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
        }
    }
    Ok(None)
}

/// Tries `work` as [`until`] does, and then sets `readiness` to ready.
pub async fn until_ready<T, W: Future<Output = anyhow::Result<T>>>(
    servers: &[Server],
    readiness: &Readiness,
    stop: &CancellationToken,
    work: impl FnMut() -> W,
) -> anyhow::Result<Option<T>> {
    let done = until(servers, readiness, stop, work).await?;
    if done.is_some() {
        readiness.ready();
    }
    Ok(done)
}

fn warn(server: &Server, error: &anyhow::Error, pause_ms: u64) {
    tracing::warn!(
        place = server.place,
        error = &**error as &dyn Error,
        retry_in_ms = pause_ms,
        "waiting for {}",
        server.name
    );
}

/// The startup of a service that does not serve yet. If it lasts longer than two seconds, `/health/live` answers 200,
/// `/health/ready` 503 with the missing dependencies, and every other path 503.
pub struct Startup<'a> {
    http: &'a HttpConfig,
    name: &'static str,
    listener: &'a TcpListener,
    shutdown: &'a Shutdown,
    health: HealthRegistry,
    /// Never set to ready: the service itself reports readiness.
    readiness: Readiness,
    answers: Option<Answers>,
}

impl<'a> Startup<'a> {
    /// Begins the startup of the service `name`, which will serve on `listener`.
    pub fn new(
        http: &'a HttpConfig,
        name: &'static str,
        listener: &'a TcpListener,
        shutdown: &'a Shutdown,
    ) -> Self {
        let mut health = HealthRegistry::default();
        let readiness = health.readiness("start");
        Self {
            http,
            name,
            listener,
            shutdown,
            health,
            readiness,
            answers: None,
        }
    }

    /// Runs [`until`] with the soft stop as its `stop`.
    pub async fn until<T, W: Future<Output = anyhow::Result<T>>>(
        &mut self,
        servers: &[Server],
        work: impl FnMut() -> W,
    ) -> anyhow::Result<Option<T>> {
        let mut waiting = Box::pin(until(servers, &self.readiness, &self.shutdown.soft, work));
        if self.answers.is_none() {
            tokio::select! {
                result = &mut waiting => return result,
                () = tokio::time::sleep(ANSWER_AFTER) => {}
            }
            self.answers = Some(Answers::begin(
                self.http,
                self.name,
                self.listener,
                self.health.clone(),
                self.shutdown,
            )?);
        }
        waiting.await
    }

    /// Ends the startup. The service may serve afterwards: nothing else answers on its listener any more.
    pub async fn end(self) {
        if let Some(answers) = self.answers {
            answers.end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::cell::Cell;

    #[derive(Debug, thiserror::Error)]
    #[error("no server answers")]
    struct Away;

    fn servers() -> [Server; 2] {
        let postgres = Server {
            name: "postgres",
            place: "postgres://shop:***@127.0.0.1/shop".to_owned(),
            is_unavailable: |_| false,
        };
        [
            postgres,
            Server::kafka("127.0.0.1:9092", <dyn Error>::is::<Away>),
        ]
    }

    #[tokio::test]
    async fn an_unavailable_server_is_retried_and_named() {
        let mut health = HealthRegistry::default();
        let readiness = health.readiness("start");
        let tries = Cell::new(0);
        let work = || async {
            let seen = health.waiting().expect("it is not ready");
            tries.set(tries.get() + 1);
            if tries.get() < 3 {
                return Err(Away).context("asking for topics");
            }
            anyhow::Ok(seen)
        };
        let stop = CancellationToken::new();
        let seen = until(&servers(), &readiness, &stop, work).await;
        let detail = Some("asking for topics: no server answers".to_owned());
        let kafka = Awaited {
            detail,
            ..Awaited::new("kafka")
        };
        assert_eq!(seen.expect("it comes"), Some(vec![kafka]));
        assert_eq!(tries.get(), 3);
        // The remaining dependencies are not known; the caller reports readiness.
        assert_eq!(health.waiting(), Some(Vec::new()));
    }

    #[tokio::test]
    async fn an_error_without_an_unavailable_server_is_returned_at_once() {
        let readiness = HealthRegistry::default().readiness("start");
        let tries = Cell::new(0);
        let work = || async {
            tries.set(tries.get() + 1);
            anyhow::bail!("a wrong password")
        };
        let stop = CancellationToken::new();
        let result = until::<(), _>(&servers(), &readiness, &stop, work).await;
        assert_eq!(
            result.expect_err("it fails").to_string(),
            "a wrong password"
        );
        assert_eq!(tries.get(), 1);
    }

    #[tokio::test]
    async fn the_stop_ends_a_try_and_a_pause() {
        let readiness = HealthRegistry::default().readiness("start");
        let stop = CancellationToken::new();
        let hanging = || async {
            stop.cancel();
            std::future::pending::<anyhow::Result<()>>().await
        };
        let stopped = until(&servers(), &readiness, &stop, hanging).await;
        assert_eq!(stopped.expect("no error"), None);
        let stop = CancellationToken::new();
        let failing = || async {
            stop.cancel();
            Err::<(), _>(Away.into())
        };
        let stopped = until(&servers(), &readiness, &stop, failing).await;
        assert_eq!(stopped.expect("no error"), None);
    }
}
