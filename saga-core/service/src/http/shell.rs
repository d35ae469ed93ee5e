//! The middleware that every request passes, in this order:
//!
//! ```text
//!  observe ▶ foreign pages ▶ CORS ▶ problems ▶ limits (body, time, hard stop) ▶ panics ▶ the service's own routes
//! ```

use super::{
    context::{CORRELATION_ID, RequestContext},
    problem::Problem,
};
use crate::lifecycle::Shutdown;
use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{
    any::Any,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tracing::Instrument;
use uuid::Uuid;

/// The number of bytes that are read and discarded of a body that is too large, so that the client receives the answer
/// instead of a broken connection.
const DISCARD_LIMIT_BYTES: usize = 64 * 1024 * 1024;
/// The time limit for discarding such a body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a library's plain-text error. Such errors are short; a longer text is not a message.
const TEXT_LIMIT_BYTES: usize = 4096;
/// The time after which to retry a request that timed out or came before the service had started.
const RETRY_AFTER_SECONDS: u64 = 2;

#[derive(Clone)]
pub(super) struct Limits {
    pub body_bytes: usize,
    pub request: Duration,
    pub shutdown: Shutdown,
}

/// The outermost middleware: context, log line and metric.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let context = RequestContext::of(request.headers());
    // The span has the highest level, so that a filter for warnings keeps the id on them.
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

/// Returns the resource that a path names, as a field for every log line of its request. Only a valid UUID is used,
/// because a path is text from the client.
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

/// Records the request's duration. The label is the route's pattern and not the path, because each id would create a
/// new time series.
fn record(method: &Method, route: Option<&str>, status: StatusCode, elapsed: Duration) {
    let labels = [
        ("service", crate::telemetry::service_name().to_owned()),
        ("method", known_method(method).to_owned()),
        ("route", route.unwrap_or("unmatched").to_owned()),
        ("status", status.as_u16().to_string()),
    ];
    metrics::histogram!("http_request_duration_seconds", &labels).record(elapsed.as_secs_f64());
}

/// Returns the method as a label. Methods are text from the client, so unknown methods become `other`.
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
    // Probes run every few seconds and would bury all other lines.
    if path.starts_with("/health") || path == "/metrics" {
        tracing::debug!(%method, path, status, duration_ms, "request");
    } else {
        tracing::info!(%method, path, status, duration_ms, "request");
    }
}

/// Turns every error response that is plain text into a problem, keeping headers such as `Allow`.
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

/// Limits the body's size and the time to answer, and breaks off at the hard stop.
pub(super) async fn limit(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let work = async {
        match buffered(request, limits.body_bytes).await {
            Ok(request) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    tokio::select! {
        result = timeout(limits.request, work) => result.unwrap_or_else(|_| {
            tracing::warn!(limit_ms = limits.request.as_millis() as u64, "a request took too long");
            Problem::unavailable("the request took too long; its outcome is unknown", RETRY_AFTER_SECONDS)
                .with_type("timeout")
                .into_response()
        }),
        () = limits.shutdown.hard.cancelled() => {
            Problem::unavailable("the service is stopping", RETRY_AFTER_SECONDS).into_response()
        }
    }
}

/// Reads the whole body first, so that handlers never see half of one.
async fn buffered(request: Request, limit_bytes: usize) -> Result<Request, Problem> {
    let (parts, mut body) = request.into_parts();
    match Limited::new(&mut body, limit_bytes).collect().await {
        Ok(whole) => Ok(Request::from_parts(parts, Body::from(whole.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => {
            let discarding = discard(body);
            if timeout(DISCARD_TIMEOUT, discarding).await.is_err() {
                tracing::debug!("a body that is too large was not read to its end");
            }
            Err(Problem::too_large(limit_bytes))
        }
        Err(_) => Err(Problem::bad_request(
            "the request's body could not be read to its end",
        )),
    }
}

async fn discard(mut body: Body) {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await
        && length <= DISCARD_LIMIT_BYTES
    {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Answers a panic with 500, so that a panic ends only its own request.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    // The panic hook has logged the message and the place.
    tracing::error!("a request handler panicked");
    Problem::internal().into_response()
}

/// A comment line, which clients of event streams ignore.
const FIRST_BYTES: &[u8] = b":\n\n";
/// The header that turns off response buffering in nginx and compatible proxies.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Makes event streams pass through proxies without delay, and ends them at the soft stop. Proxies would buffer small
/// events, or compress them, and forward nothing before the first byte. At the stop, open streams would otherwise delay
/// the drain until its deadline.
pub(super) async fn streams(
    State(shutdown): State<Shutdown>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !is_stream {
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    let caching = HeaderValue::from_static("no-cache, no-transform");
    headers.insert(header::CACHE_CONTROL, caching);
    response.map(|body| {
        let first = stream::once(async { Ok(Bytes::from_static(FIRST_BYTES)) });
        Body::from_stream(
            first
                .chain(body.into_data_stream())
                .take_until(shutdown.soft.cancelled_owned()),
        )
    })
}

/// Answers paths without a route; [`as_problems`] turns the answer into a problem.
pub(super) async fn nothing_here() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// Answers paths without a route while the service waits for its servers.
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
    fn log_lines_carry_the_id_of_their_path() {
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
