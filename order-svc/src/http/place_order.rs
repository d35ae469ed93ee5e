//! `POST /orders`
//!
//! The answer follows the commit of the order, its first event, its barrier record, its key and its saga's start.

use super::{App, answer, headers};
use crate::{
    domain::{
        order::{Order, OrderStatus},
        request::{OrderRequest, RequestError},
    },
    intake::{
        batch::{Idempotency, IntakeError, Job, Outcome, StoredAnswer},
        waiting::{KeyOf, Settled, Ticket},
    },
    store, view,
};
use axum::{
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use saga_messaging::{batcher::BatcherError, kafka::home_partition};
use saga_service::{
    clock,
    http::{Problem, RequestContext},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

// For the documentation only: the body is read by `OrderRequest::parse`, which names every wrong field.

/// An order in either of two forms. They do not mix, and unknown fields are refused.
#[derive(ToSchema)]
#[schema(as = PlaceOrder)]
#[serde(untagged)]
pub enum PlaceOrder {
    /// Up to 100 products, each once.
    Items(OrderOfItems),
    /// One product, by the total of the order.
    OneProduct(OrderOfOneProduct),
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderOfItems {
    pub customer_id: Uuid,
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<NewItem>,
    /// ISO 4217; the service's default if not given.
    #[schema(nullable = false)]
    pub currency: Option<String>,
    /// Which saga definition drives the order; the service's default if not given.
    #[schema(nullable = false)]
    pub definition: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewItem {
    pub product_id: Uuid,
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub quantity: u32,
    /// Per piece, major units, at most the currency's digits behind the point, no exponent.
    #[schema(exclusive_minimum = 0, example = 10.50)]
    pub price: f64,
}

#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderOfOneProduct {
    pub customer_id: Uuid,
    pub product_id: Uuid,
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub quantity: u32,
    /// The order's total, major units. It is what is charged, also if it is no multiple of the quantity.
    #[schema(exclusive_minimum = 0, example = 31.50)]
    pub amount: f64,
    /// ISO 4217; the service's default if not given.
    #[schema(nullable = false)]
    pub currency: Option<String>,
    /// Which saga definition drives the order; the service's default if not given.
    #[schema(nullable = false)]
    pub definition: Option<String>,
}

/// When to come again after a push-back: while the orchestrator works, its backlog is shorter than that.
const RETRY_BACKLOG_SECONDS: u64 = 2;
const RETRY_QUEUE_SECONDS: u64 = 1;

/// Places an order.
///
/// With `Idempotency-Key`, for 24 hours and per customer, the same key and order give the same answer again; with
/// `Prefer: wait=N` (at most 30) the answer comes when the order has ended, or after N seconds as it stands then.
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
        (status = 201, description = "Accepted: the order will end confirmed or cancelled", body = view::OrderView,
            headers(
                ("Location" = String, description = "The order's address"),
                ("Preference-Applied" = Option<String>, description = "The wait that was granted"),
            )),
        (status = 400, description = "Not a JSON object, or a wrong header", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The first request with this key is not answered yet", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON by its content-type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields are wrong, or the key was used for another order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too busy, or the database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn place_order(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    // A flood of starts would make every saga pay the backlog once a step. Who comes too many must cost little.
    if app.pressure.is_high(app.outbox.backlog()) {
        let detail = "too many orders and answers are waiting to be handled";
        return Err(answer::busy(detail, RETRY_BACKLOG_SECONDS));
    }
    let body = answer::json_body(&headers, body)?;
    let key = headers::idempotency_key(&headers)?;
    let request = OrderRequest::parse(&body, &app.rules).map_err(|error| match error {
        RequestError::Unreadable(detail) => Problem::bad_request(detail),
        RequestError::Invalid(mistakes) => answer::invalid_fields(mistakes),
    })?;
    let partitions = app.partitions.get().ok_or_else(|| {
        answer::busy(
            "Kafka has not been reached since the start",
            RETRY_QUEUE_SECONDS,
        )
    })?;
    let request_hash = request.hash();
    let order = new_order(request, &context, partitions);
    let waiting = headers::wait_seconds(&headers).and_then(|seconds| {
        let owner = key.clone().map(|key| (order.customer_id, key));
        let ticket = app.waiters.register(order.id, owner.clone())?;
        Some(Waiting {
            ticket,
            owner,
            seconds,
            deadline: started + Duration::from_secs(seconds),
        })
    });
    let preference_applied = waiting
        .as_ref()
        .map(|waiting| format!("wait={}", waiting.seconds));
    let job = Job {
        idempotency: key.map(|key| Idempotency {
            key,
            request_hash,
            preference_applied: preference_applied.clone(),
            wait_seconds: waiting.as_ref().map_or(0, |waiting| waiting.seconds),
        }),
        traceparent: context.traceparent,
        order: order.clone(),
    };
    let outcome = app.intake.submit(job).await.map_err(not_taken)?;
    let answer = match outcome {
        Outcome::Accepted => {
            tracing::Span::current().record("order.id", tracing::field::display(order.id));
            first_answer(&app, &order, preference_applied, waiting).await?
        }
        Outcome::Stored(stored) => stored,
        Outcome::InProgress => return Err(in_progress()),
        Outcome::KeyReused => return Err(key_reused()),
        Outcome::Failed(error) => return Err(not_taken(BatcherError::Failed(error))),
    };
    created(answer)
}

/// A request that waits.
struct Waiting {
    ticket: Ticket,
    /// Whom its answer is stored for.
    owner: Option<KeyOf>,
    seconds: u64,
    deadline: Instant,
}

fn new_order(request: OrderRequest, context: &RequestContext, partitions: i32) -> Order {
    let id = clock::new_id();
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
        created_at: clock::now(),
        ended_at: None,
        reason: None,
    }
}

/// The answer to the request that made the order: at once, or when the order has ended.
async fn first_answer(
    app: &App,
    order: &Order,
    preference_applied: Option<String>,
    waiting: Option<Waiting>,
) -> Result<StoredAnswer, Problem> {
    let initial = StoredAnswer {
        order_id: order.id,
        body: view::body(order),
        preference_applied,
    };
    let Some(waiting) = waiting else {
        return Ok(initial);
    };
    match waiting.ticket.wait(waiting.deadline).await {
        Settled::Final(body) => Ok(StoredAnswer { body, ..initial }),
        Settled::Initial => Ok(initial),
        Settled::Unclear => Ok(stored_answer(app, waiting.owner).await?.unwrap_or(initial)),
    }
}

/// What is stored is what must be sent, whatever the poller came to make of it. Rare enough for a read.
async fn stored_answer(app: &App, owner: Option<KeyOf>) -> Result<Option<StoredAnswer>, Problem> {
    let Some((customer_id, key)) = owner else {
        return Ok(None);
    };
    let read = async {
        let mut connection = app.pool.acquire().await?;
        store::idempotency::taken(&mut connection, &[(customer_id, key.as_str())]).await
    };
    let stored = read.await.map_err(|error: sqlx::Error| {
        Problem::away(
            "the order was accepted, but its answer could not be read",
            &error,
        )
    })?;
    Ok(stored.into_iter().next().map(|row| StoredAnswer {
        order_id: row.order_id,
        body: row.answer,
        preference_applied: row.preference_applied,
    }))
}

fn created(answer: StoredAnswer) -> Result<Response, Problem> {
    let mut response = answer::json_text(StatusCode::CREATED, answer.body);
    let mut set = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value)
            .map_err(|error| Problem::away("the answer could not be written", &error))?;
        response.headers_mut().insert(name, value);
        Ok::<(), Problem>(())
    };
    set(header::LOCATION, &format!("/orders/{}", answer.order_id))?;
    if let Some(applied) = &answer.preference_applied {
        set(
            HeaderName::from_static(headers::PREFERENCE_APPLIED),
            applied,
        )?;
    }
    Ok(response)
}

fn in_progress() -> Problem {
    let detail = "the first request with this Idempotency-Key has not been answered yet";
    Problem {
        retry_after_seconds: Some(1),
        ..Problem::conflict(detail).with_type("idempotency-key-in-use")
    }
}

fn key_reused() -> Problem {
    Problem::unprocessable("this Idempotency-Key came with another order within the last 24 hours")
        .with_type("idempotency-key-reused")
}

fn not_taken(error: BatcherError<IntakeError>) -> Problem {
    match error {
        BatcherError::Full => answer::busy("too many orders are arriving", RETRY_QUEUE_SECONDS),
        BatcherError::Closed => answer::busy("this instance is stopping", RETRY_QUEUE_SECONDS),
        BatcherError::BrokenOff => Problem::away(UNKNOWN, &error),
        BatcherError::Failed(error) => match &error {
            IntakeError::Store(_) => Problem::away("the order could not be stored", &error),
            IntakeError::Unknown(_) => Problem::away(UNKNOWN, &error),
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

/// Without a key, trying again may make a second order; that is for the caller to weigh.
const UNKNOWN: &str = "whether the order was stored is not known; with an Idempotency-Key it is \
                       safe to try again";
