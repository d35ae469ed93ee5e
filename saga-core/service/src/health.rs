//! Health: a service registers its dependencies, the shell answers `/health`, `/health/live`, `/health/ready`.

use futures_util::{StreamExt, stream::FuturesOrdered};
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
    readiness: Vec<Arc<AtomicBool>>,
}

/// How long one check may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Says when a service can do its work. Until then `/health/ready` answers 503.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn ready(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn not_ready(&self) {
        self.0.store(false, Ordering::Release);
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

    /// Keeps the service from being ready until the handle says so. A service that takes none is ready as soon as it
    /// serves; one that takes several is ready when all say so. Take it before [`crate::http::serve`].
    pub fn readiness(&mut self) -> Readiness {
        let flag = Arc::new(AtomicBool::new(false));
        self.readiness.push(Arc::clone(&flag));
        Readiness(flag)
    }

    pub fn is_ready(&self) -> bool {
        self.readiness
            .iter()
            .all(|flag| flag.load(Ordering::Acquire))
    }

    /// Runs every check, all at once.
    pub async fn examine(&self) -> Vec<Dependency> {
        let running: FuturesOrdered<_> = self
            .checks
            .iter()
            .map(|(name, check)| examine(name, check))
            .collect();
        running.collect().await
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
