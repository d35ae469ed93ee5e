//! The HTTP shell that every service has: problem details, correlation ids, limits, health, metrics, API docs.

pub mod access;
mod browser;
mod config;
mod context;
mod docs;
mod extract;
mod paging;
pub mod problem;
mod shell;
mod system;

use crate::{health::HealthRegistry, lifecycle::Shutdown};
use anyhow::Context;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{from_fn, from_fn_with_state, map_response},
    response::Response,
    routing::{MethodRouter, any},
    serve::ListenerExt,
};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa_axum::router::OpenApiRouter;

pub use access::{AccessConfig, AccessGuard, require_token};
pub use config::HttpConfig;
pub use context::{CORRELATION_ID, RequestContext, TRACEPARENT};
pub use extract::{JSON_DEPTH_LIMIT, JsonBody, ValidJson, ValidPath, ValidQuery, parse_json};
pub use paging::page_limit;
pub use problem::{FieldError, Problem};

/// The time for which browsers may cache that an origin is allowed.
const CORS_MAX_AGE: Duration = Duration::from_mins(10);

/// Serves `api`, whose OpenAPI document is already merged, together with `/health*`, `/metrics`, `/api/docs` and
/// `/api/openapi.json`. Accepts or makes `x-correlation-id` and echoes it, continues `traceparent` (see
/// [`RequestContext`]), limits the body, answers panics, unknown routes and wrong methods with problem details, and
/// writes an access log. Returns when the soft stop has been requested and every request in flight is answered, or at
/// the hard stop.
pub async fn serve(
    config: &HttpConfig,
    listener: TcpListener,
    api: OpenApiRouter,
    title: &str,
    health: HealthRegistry,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let app = router(config, api, title, health, &shutdown)?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    tracing::info!(%address, "listening");
    let stop = shutdown.soft.clone();
    answer(listener, app, stop, shutdown.hard).await
}

/// Serves health and metrics, and answers everything else with 503 "the service is starting", until `stop`. Each answer
/// closes its connection, so that no client is still connected here when the service itself starts to answer.
pub(crate) async fn serve_start(
    config: &HttpConfig,
    listener: TcpListener,
    title: &str,
    health: HealthRegistry,
    shutdown: Shutdown,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let starting = any(shell::starting);
    let app = assemble(
        config,
        OpenApiRouter::new(),
        title,
        health,
        &shutdown,
        starting,
    )?;
    let app = app.layer(map_response(async |mut response: Response| {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    }));
    answer(listener, app, stop, shutdown.hard).await
}

/// Serves `app` until `stop` and until every request in flight is answered, or until `hard`.
async fn answer(
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
    hard: CancellationToken,
) -> anyhow::Result<()> {
    // Without TCP_NODELAY, small answers would wait for the client's delayed acknowledgement.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
    });
    let serving = axum::serve(listener, app)
        .with_graceful_shutdown(stop.cancelled_owned())
        .into_future();
    tokio::select! {
        result = serving => result.context("the HTTP server failed"),
        () = hard.cancelled() => Ok(()),
    }
}

/// Builds the whole application, for [`serve`] and for tests that need no socket.
pub fn router(
    config: &HttpConfig,
    api: OpenApiRouter,
    title: &str,
    health: HealthRegistry,
    shutdown: &Shutdown,
) -> anyhow::Result<Router> {
    let otherwise = any(shell::nothing_here);
    assemble(config, api, title, health, shutdown, otherwise)
}

fn assemble(
    config: &HttpConfig,
    api: OpenApiRouter,
    title: &str,
    health: HealthRegistry,
    shutdown: &Shutdown,
    otherwise: MethodRouter,
) -> anyhow::Result<Router> {
    let system = system::System {
        health,
        shutdown: shutdown.clone(),
    };
    let (routes, mut openapi) = api.merge(system::router(system)).split_for_parts();
    title.clone_into(&mut openapi.info.title);
    env!("CARGO_PKG_VERSION").clone_into(&mut openapi.info.version);
    let limits = shell::Limits {
        body_bytes: config.body_limit_bytes,
        request: Duration::from_millis(config.request_timeout_ms),
        shutdown: shutdown.clone(),
    };
    // A request passes the last layer added first.
    let mut app = routes
        .merge(docs::router(openapi))
        .fallback_service(otherwise)
        // The shell's own limit reads the body before axum's limit could.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(shell::panicked))
        .layer(from_fn_with_state(shutdown.clone(), shell::streams))
        .layer(from_fn_with_state(limits, shell::limit))
        .layer(from_fn(shell::as_problems));
    if let Some(cors) = cors(&config.cors_origins)? {
        app = app.layer(cors);
    }
    let origin_check = browser::OriginCheck::new(config);
    Ok(app
        .layer(from_fn_with_state(origin_check, browser::admit))
        .layer(from_fn(shell::observe)))
}

fn cors(origins: &[String]) -> anyhow::Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let values: Result<Vec<HeaderValue>, _> =
            origins.iter().map(|origin| origin.parse()).collect();
        AllowOrigin::list(values.context("http.cors_origins has an invalid origin")?)
    };
    let idempotency_key = HeaderName::from_static("idempotency-key");
    let prefer = HeaderName::from_static("prefer");
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            CORRELATION_ID,
            TRACEPARENT,
            idempotency_key,
            prefer,
        ])
        .expose_headers([CORRELATION_ID, header::LOCATION, header::RETRY_AFTER])
        .max_age(CORS_MAX_AGE);
    Ok(Some(layer))
}
