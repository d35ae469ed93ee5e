//! `POST /orders/{id}/cancel`
//!
//! Whether an order can still be cancelled is decided where everything about its saga is decided, on the saga's home
//! partition; here the wish is recorded and sent there. A refusal therefore shows in the order's events.

use super::{App, answer};
use crate::{
    SOURCE,
    domain::{
        json::{Mistakes, Object, string},
        limits::MAX_REASON_CHARS,
        order::{Order, OrderStatus},
    },
    intake::start,
    store::{
        self,
        event::{EventKind, OrderEvent},
    },
    view::{self, OrderView},
};
use axum::{
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use saga_contracts::topic;
use saga_core::{
    ids::SagaId,
    message::{ActionKind, OperatorAction},
};
use saga_messaging::{
    crash_point::CrashPoint,
    outbox::{OutboxError, StagedBatch},
};
use saga_service::{
    clock,
    http::{Problem, RequestContext},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

/// Reason of a request that gives none.
const NO_REASON: &str = "the customer asked for it";

/// The body; it may be left out.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CancelRequest {
    /// For people, at most 500 characters.
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

/// A cancellation that was asked for and is not decided yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Cancellation {
    /// The operator action that the orchestrator decides.
    action_id: Uuid,
    reason: String,
}

/// The order and what was asked for.
#[derive(Serialize, ToSchema)]
struct CancelAccepted<'a> {
    #[serde(flatten)]
    order: OrderView<'a>,
    cancellation: Cancellation,
}

/// Why the transaction ended without a wish recorded.
enum CancelError {
    Unknown,
    Ended(Box<Order>),
    Store(OutboxError),
}

impl From<sqlx::Error> for CancelError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(OutboxError::Store(error.into()))
    }
}

impl From<OutboxError> for CancelError {
    fn from(error: OutboxError) -> Self {
        Self::Store(error)
    }
}

/// What is to be recorded.
struct Wish<'a> {
    id: Uuid,
    reason: String,
    context: &'a RequestContext,
    at: DateTime<Utc>,
}

/// Asks for an order to be cancelled. The answer comes before the decision: the order's events and its status tell.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    tag = "orders",
    params(("id" = Uuid, Path, description = "The order's id")),
    request_body(content = Option<CancelRequest>, content_type = "application/json"),
    responses(
        (status = 202, description = "Asked for; a second request while it is undecided sends the first one again", body = CancelAccepted),
        (status = 400, description = "The id or the body cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The order has ended", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn cancel_order(
    State(app): State<Arc<App>>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let id = answer::order_id(&id)?;
    let body = answer::json_body(&headers, body)?;
    let wish = Wish {
        id,
        reason: read_reason(&body)?,
        context: &context,
        at: clock::now(),
    };
    let (order, cancellation) = record(&app, &wish).await.map_err(|error| match error {
        CancelError::Unknown => answer::unknown_order(id),
        CancelError::Ended(order) => ended(&order),
        CancelError::Store(error) => {
            Problem::away("the cancellation could not be recorded", &error)
        }
    })?;
    info!(
        order.id = %id,
        saga.id = %id,
        correlation.id = context.correlation_id,
        saga.action_id = %cancellation.action_id,
        "cancellation asked for"
    );
    let accepted = CancelAccepted {
        order: OrderView::of(&order),
        cancellation,
    };
    let body = serde_json::to_string(&accepted)
        .map_err(|error| Problem::away("the answer could not be written", &error))?;
    Ok(answer::json_text(StatusCode::ACCEPTED, body))
}

fn read_reason(body: &[u8]) -> Result<String, Problem> {
    if matches!(body, b"" | b"null") {
        return Ok(NO_REASON.to_owned());
    }
    let object = Object::from_body(body).map_err(Problem::bad_request)?;
    let mut mistakes = Mistakes::default();
    object.check_members("", &["reason"], &mut mistakes);
    let reason = match object.get("reason") {
        None => NO_REASON.to_owned(),
        Some(value) => string(value)
            .filter(|text| !text.trim().is_empty())
            .filter(|text| text.chars().count() <= MAX_REASON_CHARS)
            .filter(|text| !text.chars().any(char::is_control))
            .unwrap_or_else(|| {
                let limit = format_args!(
                    "must be text of 1 to {MAX_REASON_CHARS} characters without control characters"
                )
                .to_string();
                mistakes.add("/reason", limit);
                String::new()
            }),
    };
    if mistakes.is_empty() {
        Ok(reason)
    } else {
        Err(answer::invalid_fields(mistakes))
    }
}

/// The event and the message in one transaction, under the order's lock: its end cannot come between.
async fn record(app: &App, wish: &Wish<'_>) -> Result<(Order, Cancellation), CancelError> {
    let mut transaction = app.pool.begin().await?;
    let order = store::order::lock(&mut transaction, wish.id)
        .await?
        .ok_or(CancelError::Unknown)?;
    match order.status {
        OrderStatus::Pending => {}
        OrderStatus::Confirmed | OrderStatus::Cancelled => {
            return Err(CancelError::Ended(Box::new(order)));
        }
    }
    // Asked for again, it is sent again, as the same action: the first may have been removed by its topic's retention
    // before anybody read it, and the order would be held for ever.
    let cancellation = match pending(&mut transaction, wish.id).await? {
        Some(pending) => pending,
        None => insert(&mut transaction, wish).await?,
    };
    let staged = stage(app, &mut transaction, &order, wish, &cancellation).await?;
    CrashPoint::CancelBeforeCommit.pass();
    transaction.commit().await?;
    CrashPoint::CancelAfterCommit.pass();
    app.relay.publish_soon(staged);
    Ok((order, cancellation))
}

/// A cancellation that is asked for the first time.
async fn insert(tx: &mut PgConnection, wish: &Wish<'_>) -> Result<Cancellation, sqlx::Error> {
    let cancellation = Cancellation {
        action_id: clock::new_id(),
        reason: wish.reason.clone(),
    };
    let event = OrderEvent {
        order_id: wish.id,
        kind: EventKind::CancelRequested,
        at: wish.at,
        detail: json!(cancellation),
    };
    store::event::insert(tx, &[event]).await?;
    Ok(cancellation)
}

/// A cancellation that was asked for before.
async fn pending(tx: &mut PgConnection, id: Uuid) -> Result<Option<Cancellation>, sqlx::Error> {
    let events = store::event::of_order(tx, id).await?;
    let request = events
        .into_iter()
        .find(|event| event.kind == EventKind::CancelRequested);
    request
        .map(|event| serde_json::from_value(event.detail))
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

async fn stage(
    app: &App,
    tx: &mut PgConnection,
    order: &Order,
    wish: &Wish<'_>,
    cancellation: &Cancellation,
) -> Result<StagedBatch, OutboxError> {
    let action = OperatorAction {
        saga_id: SagaId(order.id),
        action_id: cancellation.action_id,
        kind: ActionKind::Cancel,
        actor: SOURCE.to_owned(),
        reason: cancellation.reason.clone(),
        if_version: None,
        trace: start::trace(&wish.context.correlation_id, &wish.context.traceparent),
    };
    let record = action.encode(
        topic::SAGA_INPUTS,
        Some(order.home_partition),
        SOURCE,
        wish.at,
    );
    // A crash or a long outage leaves the order's own start to the sweep. A cancel that overtook it would be refused for
    // want of a saga, and the order would go through all the same; so the start goes in front of it once more.
    let start = start::record(order, &wish.context.traceparent);
    app.outbox.stage_owned(tx, vec![start, record]).await
}

fn ended(order: &Order) -> Problem {
    let since = order.ended_at.map(view::time).unwrap_or_default();
    let reason = order
        .reason
        .as_ref()
        .map(|reason| format!(" ({}: {})", reason.code, reason.message))
        .unwrap_or_default();
    Problem::conflict(format!(
        "the order is {} since {since}{reason}",
        order.status
    ))
    .with_type("order-ended")
    .with_title("The order has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_may_be_left_out() {
        assert_eq!(read_reason(b"").expect("reason"), NO_REASON);
        assert_eq!(read_reason(b"null").expect("reason"), NO_REASON);
        assert_eq!(read_reason(b"{}").expect("reason"), NO_REASON);
        assert_eq!(
            read_reason(br#"{"reason": "too late"}"#).expect("reason"),
            "too late"
        );
    }

    #[test]
    fn every_bad_reason_is_refused() {
        let long = json!({"reason": "x".repeat(MAX_REASON_CHARS + 1)}).to_string();
        for body in [
            r#"{"reason": 7}"#,
            r#"{"reason": null}"#,
            r#"{"reason": " "}"#,
            r#"{"reason": "a\u0000b"}"#,
            r#"{"because": "x"}"#,
            r#"{"reason": "a", "reason": "b"}"#,
            long.as_str(),
        ] {
            assert_eq!(read_reason(body.as_bytes()).expect_err(body).status, 422);
        }
        for body in [&b"x"[..], b"[]", b"7", b"\xff"] {
            assert_eq!(read_reason(body).expect_err("refused").status, 400);
        }
    }
}
