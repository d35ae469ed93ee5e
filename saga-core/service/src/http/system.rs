//! The endpoints that every service has: health, metrics, API docs.

use crate::{
    health::{Awaited, Dependency, DependencyStatus, HealthRegistry},
    lifecycle::Shutdown,
    telemetry,
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

#[derive(Clone)]
pub(super) struct System {
    pub health: HealthRegistry,
    pub shutdown: Shutdown,
}

pub(super) fn router(system: System) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .with_state(system)
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ServiceState {
    Live,
    Starting,
    Ready,
    Draining,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    status: ServiceState,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_for: Vec<Awaited>,
}

impl From<ServiceState> for ServiceStatus {
    fn from(status: ServiceState) -> Self {
        Self {
            status,
            waiting_for: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    status: DependencyStatus,
    dependencies: Vec<Dependency>,
}

/// Returns each dependency with its state.
#[utoipa::path(
    get,
    path = "/health",
    tag = "system",
    responses((status = 200, description = "All dependencies are up", body = Health),
              (status = 503, description = "At least one is down", body = Health))
)]
async fn health(State(system): State<System>) -> impl IntoResponse {
    let dependencies = system.health.examine().await;
    let all_up = dependencies
        .iter()
        .all(|one| one.status == DependencyStatus::Up);
    let (code, status) = if all_up {
        (StatusCode::OK, DependencyStatus::Up)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, DependencyStatus::Down)
    };
    (
        code,
        Json(Health {
            status,
            dependencies,
        }),
    )
}

/// Says whether the process answers at all.
#[utoipa::path(get, path = "/health/live", tag = "system",
    responses((status = 200, description = "It does", body = ServiceStatus)))]
async fn live() -> impl IntoResponse {
    Json(ServiceStatus::from(ServiceState::Live))
}

/// Says whether requests should be sent to this process.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "system",
    responses((status = 200, description = "They should", body = ServiceStatus),
              (status = 503, description = "It is draining, or starting: then with what it waits for", body = ServiceStatus))
)]
async fn ready(State(system): State<System>) -> impl IntoResponse {
    let waiting = system.health.waiting();
    let (code, status) = if system.shutdown.soft.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, ServiceState::Draining)
    } else if waiting.is_none() {
        (StatusCode::OK, ServiceState::Ready)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, ServiceState::Starting)
    };
    let status = ServiceStatus {
        waiting_for: waiting.unwrap_or_default(),
        ..status.into()
    };
    (code, Json(status))
}

/// Returns the metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "system",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain")))]
async fn metrics(State(system): State<System>) -> impl IntoResponse {
    system.health.measure();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        telemetry::render(),
    )
}
