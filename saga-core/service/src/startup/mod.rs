//! A start waits for its servers: a database or a broker that is away is one that comes, and whoever ends because of it
//! is only started again.
//!
//! ```text
//!  work ─▶ done ─▶ the start goes on
//!   ▲  └─▶ a server is away ─▶ warn, say so in /health/ready, pause ─┐      any other error ─▶ the start ends with it
//!   └────────────────────────────────────────────────────────────────┘      the soft stop ─▶ it ends, cleanly
//! ```
//!
//! Which errors say that a server is away is the server's own business ([`Server::is_away`]): what waiting cannot heal,
//! such as a wrong password, ends the start at once.

mod answers;
pub mod participant;

use crate::health::{Awaited, HealthRegistry, Readiness};
use crate::{http::HttpConfig, lifecycle::Shutdown};
use answers::Answers;
use saga_core::retry::RetryPolicy;
use std::{
    error::Error,
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Between two tries. Short enough that a server that is back is not kept waiting, and random enough that services that
/// lost it together do not come back together.
const PAUSE: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    first_delay_ms: 250,
    factor: 2.0,
    max_delay_ms: 5_000,
    jitter: 0.3,
};

/// From when on a start that is not over answers HTTP. An ordinary one is over before anybody asks, and whoever asks
/// meanwhile waits for it.
const ANSWER_AFTER: Duration = Duration::from_secs(2);

/// A server that a start needs.
#[derive(Clone, Debug)]
pub struct Server {
    /// `postgres`, `kafka`.
    pub name: &'static str,
    /// Its address, with secrets masked.
    pub place: String,
    /// Whether this error, one of a chain, says that the server is away.
    pub is_away: fn(&(dyn Error + 'static)) -> bool,
}

impl Server {
    /// The brokers of a Kafka cluster. `is_away` is of whoever speaks with them.
    pub fn kafka(brokers: &str, is_away: fn(&(dyn Error + 'static)) -> bool) -> Self {
        Self {
            name: "kafka",
            place: brokers.to_owned(),
            is_away,
        }
    }

    /// The one of `servers` that is away.
    fn away<'a>(servers: &'a [Self], error: &anyhow::Error) -> Option<&'a Self> {
        servers
            .iter()
            .find(|server| error.chain().any(|cause| (server.is_away)(cause)))
    }
}

/// Tries `work` until it succeeds, and says in `readiness` what it waits for; only its caller knows whether the service
/// is ready then. An error that none of `servers` is to blame for is returned; `None` if `stop` came first.
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
            result = work() => result,
        };
        let error = match result {
            Ok(value) => {
                readiness.waits_for(Vec::new());
                if tries > 1 {
                    let waited_ms = began.elapsed().as_millis() as u64;
                    tracing::info!(tries, waited_ms, "what was waited for is there");
                }
                return Ok(Some(value));
            }
            Err(error) => error,
        };
        let Some(server) = Server::away(servers, &error) else {
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

fn warn(server: &Server, error: &anyhow::Error, pause_ms: u64) {
    tracing::warn!(
        place = server.place,
        error = &**error as &dyn Error,
        retry_in_ms = pause_ms,
        "waiting for {}",
        server.name
    );
}

/// A start whose service does not serve yet. While it lasts for long, `/health/live` answers 200, `/health/ready` 503
/// with what is waited for, and everything else 503.
pub struct Startup<'a> {
    http: &'a HttpConfig,
    name: &'static str,
    listener: &'a TcpListener,
    shutdown: &'a Shutdown,
    health: HealthRegistry,
    /// Never ready: that is for the service itself to say.
    readiness: Readiness,
    answers: Option<Answers>,
}

impl<'a> Startup<'a> {
    /// `listener` is the one on which the service `name` will serve.
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

    /// [`until`], until the soft stop.
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

    /// The service may serve now: nobody else answers on its listener any more.
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
    #[error("nobody answers")]
    struct Away;

    fn servers() -> [Server; 2] {
        let postgres = Server {
            name: "postgres",
            place: "postgres://shop:***@127.0.0.1/shop".to_owned(),
            is_away: |_| false,
        };
        [
            postgres,
            Server::kafka("127.0.0.1:9092", <dyn Error>::is::<Away>),
        ]
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_again_and_named() {
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
        let detail = Some("asking for topics: nobody answers".to_owned());
        let kafka = Awaited {
            detail,
            ..Awaited::new("kafka")
        };
        assert_eq!(seen.expect("it comes"), Some(vec![kafka]));
        assert_eq!(tries.get(), 3);
        // What else has to be waited for is not known yet; to be ready is not this one's to say.
        assert_eq!(health.waiting(), Some(Vec::new()));
    }

    #[tokio::test]
    async fn what_no_server_is_to_blame_for_is_returned_at_once() {
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
