//! Health checks: a service registers its dependencies, and the shell answers `/health`, `/health/live` and
//! `/health/ready`.

use futures_util::{StreamExt, stream::FuturesOrdered};
use serde::Serialize;
use std::{
    future::ready,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// The check of one dependency. [`HealthRegistry::examine`] runs it with a time limit.
pub type Check =
    Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The closure that was given to [`HealthRegistry::watch`].
type Look = Arc<dyn Fn() -> (Duration, Option<String>) + Send + Sync>;

#[derive(Clone, Default)]
pub struct HealthRegistry {
    checks: Vec<(String, Check)>,
    /// The watched work, with a name such as the topic that a consumer reads.
    work: Vec<(&'static str, Look)>,
    /// The handles given out by [`HealthRegistry::readiness`].
    readiness: Vec<Readiness>,
}

/// The time limit of one check.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle with which a part of a service reports that the service can do its work. Until then `/health/ready` answers
/// 503 and lists the dependencies that are missing. Clones share the state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<RwLock<State>>);

#[derive(Debug)]
enum State {
    Ready,
    Waiting(Vec<Awaited>),
}

/// A dependency that a service needs and waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Awaited {
    /// The dependency's name: `postgres` or `kafka`.
    pub name: String,
    /// The reason why the dependency is not available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Awaited {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            detail: None,
        }
    }
}

impl Readiness {
    pub fn ready(&self) {
        self.set(State::Ready);
    }

    /// Sets the state to not ready. `awaited` may be empty if the missing dependencies are not known.
    pub fn waits_for(&self, awaited: Vec<Awaited>) {
        self.set(State::Waiting(awaited));
    }

    fn set(&self, state: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Returns the awaited dependencies, or `None` if ready.
    fn waiting(&self) -> Option<Vec<Awaited>> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Ready => None,
            State::Waiting(awaited) => Some(awaited.clone()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DependencyStatus {
    Up,
    Down,
}

/// The result of a check.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The dependency's name: `postgres` or `kafka`.
    pub name: String,
    pub status: DependencyStatus,
    /// The reason why the dependency is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub duration_ms: u64,
}

impl HealthRegistry {
    /// Adds a dependency such as `postgres` or `kafka`.
    pub fn register<F, Fut>(&mut self, name: &str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((
            name.to_owned(),
            Arc::new(move || Box::pin(check()) as futures_util::future::BoxFuture<'static, _>),
        ));
    }

    /// Adds a check that work such as a consumer's batches makes progress. A service whose new connections are healthy
    /// may still wait on an old, silent one. `look` returns how long the oldest unfinished piece of work has been
    /// waiting, and the reason why the work does not get done, or `None` if it does.
    pub fn watch(
        &mut self,
        work: &'static str,
        look: impl Fn() -> (Duration, Option<String>) + Send + Sync + 'static,
    ) {
        let look: Look = Arc::new(look);
        self.work.push((work, Arc::clone(&look)));
        self.register(&format!("work on {work}"), move || {
            let (_, trouble) = look();
            ready(trouble.map_or(Ok(()), Err))
        });
    }

    /// Sets the metric `saga_work_waiting_seconds`. Called on each request for the metrics.
    pub fn measure(&self) {
        for (work, look) in &self.work {
            let (waiting, _) = look();
            metrics::gauge!("saga_work_waiting_seconds", "work" => *work)
                .set(waiting.as_secs_f64());
        }
    }

    pub fn checks(&self) -> &[(String, Check)] {
        &self.checks
    }

    /// Returns a handle that keeps the service from being ready until [`Readiness::ready`] is called; until then the
    /// service waits for `name`. A service without handles is ready as soon as it serves; a service with several is
    /// ready when all handles are. Take the handles before [`crate::http::serve`].
    pub fn readiness(&mut self, name: &str) -> Readiness {
        let waiting = State::Waiting(vec![Awaited::new(name)]);
        let readiness = Readiness(Arc::new(RwLock::new(waiting)));
        self.readiness.push(readiness.clone());
        readiness
    }

    /// Returns the dependencies that are still waited for, or `None` once the service is ready.
    pub fn waiting(&self) -> Option<Vec<Awaited>> {
        let waiting: Vec<_> = self
            .readiness
            .iter()
            .filter_map(Readiness::waiting)
            .collect();
        (!waiting.is_empty()).then(|| waiting.concat())
    }

    /// Runs all checks concurrently. An awaited dependency without a check is reported as down.
    pub async fn examine(&self) -> Vec<Dependency> {
        let running: FuturesOrdered<_> = self
            .checks
            .iter()
            .map(|(name, check)| examine(name, check))
            .collect();
        let mut found: Vec<Dependency> = running.collect().await;
        for awaited in self.waiting().unwrap_or_default() {
            if found.iter().all(|known| known.name != awaited.name) {
                found.push(Dependency {
                    name: awaited.name,
                    status: DependencyStatus::Down,
                    detail: awaited.detail,
                    duration_ms: 0,
                });
            }
        }
        found
    }
}

async fn examine(name: &str, check: &Check) -> Dependency {
    let began = Instant::now();
    let result = tokio::time::timeout(CHECK_TIMEOUT, check())
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())));
    Dependency {
        name: name.to_owned(),
        status: if result.is_ok() {
            DependencyStatus::Up
        } else {
            DependencyStatus::Down
        },
        detail: result.err(),
        duration_ms: began.elapsed().as_millis() as u64,
    }
}
