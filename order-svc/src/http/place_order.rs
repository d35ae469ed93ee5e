//! `POST /orders`
//!
//! The answer is sent after the commit of the order, its first event, its barrier record, its key and its saga's start.

use super::{
    answer,
    app::App,
    headers,
    order_request::{OrderRequest, PlaceOrder},
};
use crate::{
    domain::order::{Order, OrderStatus},
    intake::batch::{Idempotency, IntakeError, Job, Outcome},
    store, view,
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use saga_messaging::{batcher::BatcherError, kafka::home_partition};
use saga_postgres::clock::Clock;
use saga_service::{
    clock,
    http::{JsonBody, Problem, RequestContext},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// The time after which to retry when the backlog is too long. A working orchestrator reads that backlog in less time.
const RETRY_BACKLOG_SECONDS: u64 = 2;
const RETRY_QUEUE_SECONDS: u64 = 1;

/// Places an order.
///
/// With `Idempotency-Key`, the same key and body of a customer make only one order within 24 hours. A repeated request
/// is answered with the current state of the order that the first request made, even while the first request still
/// waits. With `Prefer: wait=N` (at most 30) the answer is sent when the order has ended, or after N seconds with the
/// order's state at that time; a repeated request waits by its own `Prefer`.
#[utoipa::path(
    post,
    path = "/orders",
    tag = "orders",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 printable ASCII characters"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds for the order's end"),
    ),
    request_body(content = PlaceOrder, content_type = "application/json"),
    responses(
        (status = 201, description = "Accepted, by this request or the first one with its key: the order will end, or has ended, confirmed or cancelled", body = view::OrderView,
            headers(
                ("Location" = String, description = "The order's address"),
                ("Preference-Applied" = Option<String>, description = "The wait that was granted"),
            )),
        (status = 400, description = "Not a JSON object, or a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON by its content-type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields are wrong, or the key was used for another order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too busy, the database is unavailable, or the clocks differ too much (`clock-skew`)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn place_order(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let started = Instant::now();
    // A flood of starts would add the backlog's delay to every step of every saga. A refused request must be cheap.
    if app.pressure.is_over_limit(app.outbox.backlog()) {
        let detail = "too many orders and answers are waiting to be handled";
        return Err(answer::busy(detail, RETRY_BACKLOG_SECONDS));
    }
    clock::check_fit(app.clock)?;
    let key = headers::idempotency_key(&headers)?;
    let request = PlaceOrder::parse(&body)?.check(&app.rules)?;
    let partitions = app.partitions.get().ok_or_else(|| {
        answer::busy(
            "Kafka has not been reached since the start",
            RETRY_QUEUE_SECONDS,
        )
    })?;
    let request_hash = request.hash();
    let order = new_order(app.clock, request, &context, partitions);
    let job = Job {
        idempotency: key.map(|key| Idempotency { key, request_hash }),
        traceparent: context.traceparent,
        order: order.clone(),
    };
    let (id, new) = match app.intake.submit(job).await.map_err(not_taken)? {
        Outcome::Accepted => (order.id, Some(view::body(&order))),
        Outcome::Existing(id) => (id, None),
        Outcome::KeyReused => return Err(key_reused()),
        Outcome::Failed(error) => return Err(not_taken(BatcherError::Failed(error))),
    };
    tracing::Span::current().record("order.id", tracing::field::display(id));
    let waiting = headers::wait_seconds(&headers)
        .and_then(|seconds| Some((app.waiters.register(id)?, seconds)));
    let granted = waiting.as_ref().map(|(_, seconds)| *seconds);
    let ended = match waiting {
        Some((ticket, seconds)) => ticket.wait(started + Duration::from_secs(seconds)).await,
        None => None,
    };
    let body = match ended.or(new) {
        Some(body) => body,
        None => current_body(&app, id).await?,
    };
    created(id, body, granted)
}

fn new_order(
    clock: &Clock,
    request: OrderRequest,
    context: &RequestContext,
    partitions: i32,
) -> Order {
    let id = clock.new_id();
    Order {
        id,
        customer_id: request.customer_id,
        status: OrderStatus::Pending,
        definition: request.definition,
        items: request.items,
        amount_minor: request.amount_minor,
        currency: request.currency,
        home_partition: home_partition(&id.to_string(), partitions),
        correlation_id: context.correlation_id.clone(),
        created_at: clock.now(),
        ended_at: None,
        reason: None,
    }
}

/// Returns the current state of the order that an earlier request made.
async fn current_body(app: &App, id: Uuid) -> Result<String, Problem> {
    let find = async {
        let mut connection = app.pool.acquire().await?;
        store::order::find(&mut connection, id).await
    };
    let order = find.await.map_err(|error: sqlx::Error| {
        let detail = "the order was accepted before, but it could not be read";
        Problem::dependency_unavailable(detail, &error)
    })?;
    order
        .map(|order| view::body(&order))
        .ok_or_else(|| answer::unknown_order(id))
}

fn created(id: Uuid, body: String, granted_seconds: Option<u64>) -> Result<Response, Problem> {
    let mut response = answer::json_text(StatusCode::CREATED, body);
    let mut set = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|error| {
            Problem::dependency_unavailable("the answer could not be written", &error)
        })?;
        response.headers_mut().insert(name, value);
        Ok::<(), Problem>(())
    };
    set(header::LOCATION, &format!("/orders/{id}"))?;
    if let Some(seconds) = granted_seconds {
        let name = HeaderName::from_static(headers::PREFERENCE_APPLIED);
        set(name, &format!("wait={seconds}"))?;
    }
    Ok(response)
}

fn key_reused() -> Problem {
    Problem::unprocessable("this Idempotency-Key came with another order within the last 24 hours")
        .with_type("idempotency-key-reused")
}

fn not_taken(error: BatcherError<IntakeError>) -> Problem {
    match error {
        BatcherError::Full => answer::busy("too many orders are arriving", RETRY_QUEUE_SECONDS),
        BatcherError::Closed => answer::busy("this instance is stopping", RETRY_QUEUE_SECONDS),
        BatcherError::BrokenOff => Problem::dependency_unavailable(UNKNOWN, &error),
        BatcherError::Failed(error) => match &error {
            IntakeError::Store(_) => {
                Problem::dependency_unavailable("the order could not be stored", &error)
            }
            IntakeError::Unknown(_) => Problem::dependency_unavailable(UNKNOWN, &error),
            IntakeError::Data(_) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an order was refused"
                );
                Problem::unprocessable("the database refused a value of the order")
            }
        },
    }
}

/// Without a key a retry may make a second order. The caller has to decide.
const UNKNOWN: &str = "it is unknown if the order was stored; with an Idempotency-Key it is \
                       safe to try again";
