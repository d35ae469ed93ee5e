//! `POST /orders/{id}/cancel`
//!
//! The saga's home partition decides whether an order can still be cancelled, like everything else about the saga. This
//! endpoint only records the request and sends it there. A refusal is therefore visible in the order's events.

use super::{answer, app::App, body};
use crate::{
    domain::{
        limits::MAX_REASON_CHARS,
        order::{Order, OrderStatus},
    },
    intake::start::{self, SOURCE},
    store::{
        self,
        event::{EventKind, OrderEvent},
    },
    view::{self, OrderView},
};
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use saga_contracts::topic;
use saga_core::{
    ids::SagaId,
    message::{ActionKind, OperatorAction, StartSaga, header},
};
use saga_messaging::{
    crash_point::CrashPoint,
    outbox::{OutboxError, StagedBatch},
};
use saga_service::{
    clock,
    http::{FieldError, JsonBody, Problem, RequestContext},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

/// The age in hours below which no order is older than the orchestrator's floor of starts: `retention_days` is at least
/// 1. Only the cancel of an older order asks the orchestrator before it is recorded.
const REMEMBERED_HOURS: i64 = 24;

/// The reason of a request that gives none.
const NO_REASON: &str = "the customer asked for it";

/// The body of the request, which may be left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// The reason, a text for people of at most 500 characters.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "body::not_null")]
    pub reason: Option<String>,
}

/// A cancellation that was requested and is not decided yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Cancellation {
    /// The id of the operator action that the orchestrator decides.
    action_id: Uuid,
    reason: String,
}

/// The order and the requested cancellation.
#[derive(Serialize, ToSchema)]
struct CancelAccepted<'a> {
    #[serde(flatten)]
    order: OrderView<'a>,
    cancellation: Cancellation,
}

/// The reason why the transaction did not record a cancellation.
enum CancelError {
    Unknown,
    Ended(Box<Order>),
    BelowFloor(DateTime<Utc>),
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

/// A cancellation request to record.
struct CancellationRequest<'a> {
    id: Uuid,
    reason: String,
    context: &'a RequestContext,
    at: DateTime<Utc>,
    /// The orchestrator's floor of starts, if it would refuse the start that goes with the cancel.
    refused_below: Option<DateTime<Utc>>,
}

/// Requests the cancellation of an order. The answer comes before the decision, which is shown by the order's events
/// and its status.
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
        (status = 409, description = "The order has ended (`order-ended`), or its saga is unknown and too old to be taken up again (`below-floor`)", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn cancel_order(
    State(app): State<Arc<App>>,
    context: RequestContext,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let id = answer::order_id(&id)?;
    let reason = read_reason(&body)?;
    let at = clock::now();
    let cancellation_request = CancellationRequest {
        id,
        reason,
        context: &context,
        at,
        refused_below: refused_below(&app, id, &context, at).await,
    };
    let (order, cancellation) =
        record(&app, &cancellation_request)
            .await
            .map_err(|error| match error {
                CancelError::Unknown => answer::unknown_order(id),
                CancelError::Ended(order) => ended(&order),
                CancelError::BelowFloor(floor) => below_floor(floor),
                CancelError::Store(error) => Problem::dependency_unavailable(
                    "the cancellation could not be recorded",
                    &error,
                ),
            })?;
    info!(
        order.id = %id,
        saga.id = %id,
        correlation.id = context.correlation_id,
        saga.action_id = %cancellation.action_id,
        "cancellation requested"
    );
    let accepted = CancelAccepted {
        order: OrderView::of(&order),
        cancellation,
    };
    let body = serde_json::to_string(&accepted).map_err(|error| {
        Problem::dependency_unavailable("the answer could not be written", &error)
    })?;
    Ok(answer::json_text(StatusCode::ACCEPTED, body))
}

/// Returns the orchestrator's floor of starts if it would refuse the start that goes with the cancel: the order's saga
/// is unknown there, and the order is older.
async fn refused_below(
    app: &App,
    id: Uuid,
    context: &RequestContext,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let remembered_from = now - TimeDelta::hours(REMEMBERED_HOURS);
    let created_ms = SagaId(id).created_at_ms()?;
    if created_ms >= remembered_from.timestamp_millis() {
        return None;
    }
    app.saga_log.floor_above(id, &context.correlation_id).await
}

fn read_reason(body: &[u8]) -> Result<String, Problem> {
    if matches!(body, b"" | b"null") {
        return Ok(NO_REASON.to_owned());
    }
    let request: CancelRequest = body::parse_object(body)?;
    let Some(reason) = request.reason else {
        return Ok(NO_REASON.to_owned());
    };
    let fits = !reason.trim().is_empty()
        && reason.chars().count() <= MAX_REASON_CHARS
        && !reason.chars().any(char::is_control);
    if fits {
        Ok(reason)
    } else {
        let message = format!(
            "must be text of 1 to {MAX_REASON_CHARS} characters without control characters"
        );
        Err(Problem::invalid(vec![FieldError::new("/reason", message)]))
    }
}

/// Records the event and stages the message in one transaction. The order is locked, so that it cannot end in between.
async fn record(
    app: &App,
    cancellation_request: &CancellationRequest<'_>,
) -> Result<(Order, Cancellation), CancelError> {
    let mut transaction = app.pool.begin().await?;
    let order = store::order::lock(&mut transaction, cancellation_request.id)
        .await?
        .ok_or(CancelError::Unknown)?;
    match order.status {
        OrderStatus::Pending => {}
        OrderStatus::Confirmed | OrderStatus::Cancelled => {
            return Err(CancelError::Ended(Box::new(order)));
        }
    }
    if let Some(floor) = cancellation_request.refused_below {
        return Err(CancelError::BelowFloor(floor));
    }
    // A repeated request sends the same action again: the topic's retention may have deleted the first record before
    // the orchestrator read it, and the order would stay pending for ever.
    let cancellation = match pending(&mut transaction, cancellation_request.id).await? {
        Some(pending) => pending,
        None => insert(&mut transaction, cancellation_request).await?,
    };
    let staged = stage(
        app,
        &mut transaction,
        &order,
        cancellation_request,
        &cancellation,
    )
    .await?;
    CrashPoint::CancelBeforeCommit.pass();
    transaction.commit().await?;
    CrashPoint::CancelAfterCommit.pass();
    app.relay.publish_soon(staged);
    Ok((order, cancellation))
}

/// Records the first cancellation request of an order.
async fn insert(
    tx: &mut PgConnection,
    cancellation_request: &CancellationRequest<'_>,
) -> Result<Cancellation, sqlx::Error> {
    let cancellation = Cancellation {
        action_id: clock::new_id(),
        reason: cancellation_request.reason.clone(),
    };
    let event = OrderEvent {
        order_id: cancellation_request.id,
        kind: EventKind::CancelRequested,
        at: cancellation_request.at,
        detail: json!(cancellation),
    };
    store::event::insert(tx, &[event]).await?;
    Ok(cancellation)
}

/// Returns an earlier cancellation request of the order.
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
    cancellation_request: &CancellationRequest<'_>,
    cancellation: &Cancellation,
) -> Result<StagedBatch, OutboxError> {
    let action = OperatorAction {
        saga_id: SagaId(order.id),
        action_id: cancellation.action_id,
        kind: ActionKind::Cancel,
        actor: SOURCE.to_owned(),
        reason: cancellation.reason.clone(),
        if_version: None,
        trace: start::trace(
            &cancellation_request.context.correlation_id,
            &cancellation_request.context.traceparent,
        ),
    };
    let record = action.encode(
        topic::SAGA_INPUTS,
        Some(order.home_partition),
        SOURCE,
        cancellation_request.at,
    );
    // After a crash or a long outage the sweep sends the order's start. A cancel that overtook the start would be
    // refused because there is no saga, and the order would still be carried out. The start is therefore sent again
    // before the cancel. A header marks it as sent again: if the orchestrator no longer knows the saga, that saga may
    // have charged the order.
    let mut start = start::record(order, &cancellation_request.context.traceparent);
    start.headers.push(header::START, StartSaga::AGAIN);
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

fn below_floor(floor: DateTime<Utc>) -> Problem {
    let floor = view::time(floor);
    Problem::conflict(format!(
        "the orchestrator knows no saga of this order and starts none from before {floor}, so nothing would undo what the \
         order's saga did; look at its payment and reservations, undo them by hand, and end the order in the database \
         (deploy/OPERATING.md, \"An order whose saga is not known\")"
    ))
    .with_type("below-floor")
    .with_title("The order is too old to be cancelled by a saga")
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
