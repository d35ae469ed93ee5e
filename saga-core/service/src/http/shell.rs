//! What happens to every request on its way in and out.
//!
//! ```text
//!  observe ▶ CORS ▶ problems ▶ limits (body, time, hard stop) ▶ panics ▶ the service's own routes
//! ```

use super::{
    context::{CORRELATION_ID, RequestContext},
    problem::Problem,
};
use crate::lifecycle::Shutdown;
use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, StreamExt};
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use tracing::Instrument;
use uuid::Uuid;

/// How much of a body that is too large is read and thrown away, so that the client gets to see the answer instead of
/// a broken connection.
const DISCARD_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Plain-text errors of libraries are short; more would be no message.
const TEXT_LIMIT_BYTES: usize = 4096;
/// When a request that took too long, or came too early, may be tried again.
const RETRY_AFTER_SECONDS: u64 = 2;

#[derive(Clone)]
pub(super) struct Limits {
    pub body_bytes: usize,
    pub request: Duration,
    pub shutdown: Shutdown,
}

/// Outermost: context, log line, metric.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let context = RequestContext::of(request.headers());
    // Of the highest level, so that a filter for warnings keeps the id on them.
    let span = tracing::error_span!(
        "request",
        correlation.id = context.correlation_id,
        order.id = tracing::field::Empty,
        saga.id = tracing::field::Empty,
    );
    let correlation = context.correlation_header();
    request.extensions_mut().insert(context);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    if let Some((field, id)) = route.as_deref().and_then(|route| subject(route, &path)) {
        span.record(field, tracing::field::display(id));
    }
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(id) = correlation {
        response.headers_mut().insert(CORRELATION_ID, id);
    }
    let elapsed = began.elapsed();
    record(&method, route.as_deref(), response.status(), elapsed);
    span.in_scope(|| log(&method, &path, response.status(), elapsed));
    response
}

/// What a path is about, as the field of every line of its request. Only an id becomes one: a path is the client's text.
fn subject(route: &str, path: &str) -> Option<(&'static str, Uuid)> {
    let mut pairs = route.split('/').zip(path.split('/')).skip(1);
    let (collection, _) = pairs.next()?;
    let (parameter, value) = pairs.next()?;
    let field = match (collection, parameter) {
        ("sagas", "{id}") => "saga.id",
        ("orders", "{id}") | (_, "{orderId}") => "order.id",
        _ => return None,
    };
    Some((field, value.parse().ok()?))
}

/// The route's pattern and not the path: ids would make a metric of their own each.
fn record(method: &Method, route: Option<&str>, status: StatusCode, elapsed: Duration) {
    let labels = [
        ("service", crate::telemetry::service_name().to_owned()),
        ("method", known_method(method).to_owned()),
        ("route", route.unwrap_or("unmatched").to_owned()),
        ("status", status.as_u16().to_string()),
    ];
    metrics::histogram!("http_request_duration_seconds", &labels).record(elapsed.as_secs_f64());
}

/// Methods are the client's text; only known ones may become a label.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn log(method: &Method, path: &str, status: StatusCode, elapsed: Duration) {
    let duration_ms = (elapsed.as_secs_f64() * 10_000.0).round() / 10.0;
    let status = status.as_u16();
    // Probes ask every few seconds and would bury everything else.
    if path.starts_with("/health") || path == "/metrics" {
        tracing::debug!(%method, path, status, duration_ms, "request");
    } else {
        tracing::info!(%method, path, status, duration_ms, "request");
    }
}

/// Turns whatever error is not yet a problem into one, keeping headers such as `Allow`.
pub(super) async fn as_problems(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || !is_plain(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, TEXT_LIMIT_BYTES)
        .await
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let mut response = problem_of(status, &method, &path, text).into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    response
}

fn is_plain(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.is_none_or(|kind| kind.starts_with("text/plain"))
}

fn problem_of(status: StatusCode, method: &Method, path: &str, text: String) -> Problem {
    match status {
        StatusCode::NOT_FOUND if text.is_empty() => {
            Problem::not_found(format!("there is nothing at {path}; see /api/docs"))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail =
                format!("{path} does not take {method}; the header `allow` lists what it takes");
            Problem::new(status, detail).with_type("method-not-allowed")
        }
        _ if status.is_server_error() => Problem {
            status: status.as_u16(),
            ..Problem::internal()
        },
        _ => Problem::new(status, text),
    }
}

/// The body's size, the time to answer, and the hard stop.
pub(super) async fn limit(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let work = async {
        match buffered(request, limits.body_bytes).await {
            Ok(request) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    tokio::select! {
        result = tokio::time::timeout(limits.request, work) => result.unwrap_or_else(|_| {
            tracing::warn!(limit_ms = limits.request.as_millis() as u64, "a request took too long");
            Problem::unavailable("this took too long; whether it was done is not known", RETRY_AFTER_SECONDS)
                .with_type("timeout")
                .into_response()
        }),
        () = limits.shutdown.hard.cancelled() => {
            Problem::unavailable("the service is stopping", RETRY_AFTER_SECONDS).into_response()
        }
    }
}

/// Reads the body before anything else looks at the request: handlers then never see half of one.
async fn buffered(request: Request, limit_bytes: usize) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let mut stream = body.into_data_stream();
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| Problem::bad_request("the request's body could not be read to its end"))?;
        length += chunk.len();
        if length > limit_bytes {
            chunks.clear();
            discard(stream).await;
            return Err(Problem::too_large(limit_bytes));
        }
        chunks.push(chunk);
    }
    let body = match <[Bytes; 1]>::try_from(chunks) {
        Ok([whole]) => Body::from(whole),
        Err(chunks) => Body::from(chunks.concat()),
    };
    Ok(Request::from_parts(parts, body))
}

async fn discard(mut stream: axum::body::BodyDataStream) {
    let reading = async {
        let mut length = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            length += chunk.len();
            if length > DISCARD_LIMIT_BYTES {
                break;
            }
        }
    };
    if tokio::time::timeout(DISCARD_TIMEOUT, reading)
        .await
        .is_err()
    {
        tracing::debug!("a body that is too large was not read to its end");
    }
}

/// A panic costs its own request and nothing else.
pub(super) async fn catch_panics(request: Request, next: Next) -> Response {
    if let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await {
        return response;
    }
    // The panic hook has logged what and where.
    tracing::error!("a request handler panicked");
    Problem::internal().into_response()
}

/// Ends event streams at the soft stop: they would otherwise hold the drain until its deadline.
pub(super) async fn end_streams(
    State(shutdown): State<Shutdown>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !is_stream {
        return response;
    }
    response.map(|body| {
        Body::from_stream(
            body.into_data_stream()
                .take_until(shutdown.soft.cancelled_owned()),
        )
    })
}

/// Answers paths that no route has; [`as_problems`] makes it a problem.
pub(super) async fn nothing_here() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// Answers paths that no route has as long as the service waits for its servers.
pub(super) async fn starting() -> Problem {
    Problem::unavailable(
        "the service is starting; /health/ready says what it waits for",
        RETRY_AFTER_SECONDS,
    )
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn the_id_in_a_path_is_what_its_lines_are_about() {
        const ID: &str = "01890000-0000-7000-8000-000000000001";
        let check = |route: &str, path: String, field: Option<&str>| {
            let found = subject(route, &path);
            assert_eq!(found.map(|(field, _)| field), field, "{route} {path}");
            assert!(found.is_none_or(|(_, id)| id.to_string() == ID));
        };
        check("/orders/{id}", format!("/orders/{ID}"), Some("order.id"));
        check(
            "/orders/{id}/events",
            format!("/orders/{ID}/events"),
            Some("order.id"),
        );
        check(
            "/payments/{orderId}",
            format!("/payments/{ID}"),
            Some("order.id"),
        );
        check(
            "/sagas/{id}/retry",
            format!("/sagas/{ID}/retry"),
            Some("saga.id"),
        );
        check("/stock/{productId}", format!("/stock/{ID}"), None);
        check("/orders/{id}", "/orders/nonsense".to_owned(), None);
        check("/orders", "/orders".to_owned(), None);
    }
}
