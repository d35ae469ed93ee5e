//! Health: a service registers its dependencies, the shell answers `/health`, `/health/live`, `/health/ready`.

use futures_util::{StreamExt, stream::FuturesOrdered};
use serde::Serialize;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// One dependency's check, run with a time limit.
pub type Check =
    Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[derive(Clone, Default)]
pub struct HealthRegistry {
    checks: Vec<(String, Check)>,
    /// One for each [`Readiness`] that was taken.
    readiness: Vec<Readiness>,
}

/// How long one check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Says when a service can do its work. Until then `/health/ready` answers 503, with what it waits for. Clones share the
/// state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<RwLock<State>>);

#[derive(Debug)]
enum State {
    Ready,
    Waiting(Vec<Awaited>),
}

/// What a service cannot do without, and has not got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Awaited {
    /// `postgres`, `kafka`.
    pub name: String,
    /// Why it is not there.
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

    /// Not ready; nothing may be said of what is waited for.
    pub fn waits_for(&self, awaited: Vec<Awaited>) {
        self.set(State::Waiting(awaited));
    }

    fn set(&self, state: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// `None`: ready.
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

/// What a check found.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// `postgres`, `kafka`.
    pub name: String,
    pub status: DependencyStatus,
    /// Why it is down.
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

    pub fn checks(&self) -> &[(String, Check)] {
        &self.checks
    }

    /// Keeps the service from being ready until the handle says so; until then it waits for `name`. A service that
    /// takes none is ready as soon as it serves; one that takes several is ready when all say so. Take it before
    /// [`crate::http::serve`].
    pub fn readiness(&mut self, name: &str) -> Readiness {
        let waiting = State::Waiting(vec![Awaited::new(name)]);
        let readiness = Readiness(Arc::new(RwLock::new(waiting)));
        self.readiness.push(readiness.clone());
        readiness
    }

    /// What is still waited for; `None` once the service is ready.
    pub fn waiting(&self) -> Option<Vec<Awaited>> {
        let waiting: Vec<_> = self
            .readiness
            .iter()
            .filter_map(Readiness::waiting)
            .collect();
        (!waiting.is_empty()).then(|| waiting.concat())
    }

    /// Runs every check, all at once. What is waited for and has no check is down.
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
