//! `GET /orders/{id}/events`: the order's own events and its saga's, merged by time.

use super::{answer, app::App};
use crate::{
    saga_log::SagaEvents,
    store::{self, event::OrderEvent},
    view,
};
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use saga_service::http::{Problem, RequestContext};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The events of an order, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OrderStory {
    order_id: Uuid,
    saga_id: Uuid,
    /// `included`: the saga's events are in the list. `not_started`: the orchestrator has not read the start yet.
    /// `unavailable`: the orchestrator cannot be reached, and the list has only the order's own events.
    #[schema(value_type = String, example = "included")]
    saga: &'static str,
    /// Each event has `at`, `source` (`order` or `saga`) and `type`; its other members depend on the type.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Map<String, Value>>,
}

/// Lists every change of an order, with time and cause.
#[utoipa::path(
    get,
    path = "/orders/{id}/events",
    tag = "orders",
    params(("id" = Uuid, Path, description = "The order's id")),
    responses(
        (status = 200, description = "The order's events and its saga's, oldest first", body = OrderStory),
        (status = 400, description = "The id is no UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn order_events(
    State(app): State<Arc<App>>,
    context: RequestContext,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = answer::order_id(&id)?;
    let read = async {
        let mut connection = app.pool.acquire().await?;
        store::event::of_order(&mut connection, id).await
    };
    let own = read.await.map_err(|error: sqlx::Error| {
        Problem::dependency_unavailable("the order's events could not be read", &error)
    })?;
    // An order and its first event are written in one transaction.
    if own.is_empty() {
        return Err(answer::unknown_order(id));
    }
    let story = app.saga_log.of_saga(id, &context.correlation_id).await;
    let story = merge(id, own, story);
    let body = serde_json::to_string(&story).map_err(|error| {
        Problem::dependency_unavailable("the events could not be written", &error)
    })?;
    Ok(answer::json_text(StatusCode::OK, body))
}

fn merge(id: Uuid, own: Vec<OrderEvent>, story: SagaEvents) -> OrderStory {
    let (saga, told) = match story {
        SagaEvents::Available(events) => ("included", events),
        SagaEvents::NotStarted => ("not_started", Vec::new()),
        SagaEvents::Unavailable => ("unavailable", Vec::new()),
    };
    let mut events: Vec<(DateTime<Utc>, Map<String, Value>)> = own
        .into_iter()
        .map(|event| (event.at, own_event(event)))
        .collect();
    // An event without a valid time is placed directly after its predecessor.
    let mut latest = DateTime::<Utc>::MIN_UTC;
    for event in told {
        if let Value::Object(mut event) = event {
            let at = event.get("at").and_then(Value::as_str);
            let at = at.and_then(|at| DateTime::parse_from_rfc3339(at).ok());
            latest = at.map_or(latest, |at| at.to_utc());
            event.insert("source".to_owned(), Value::from("saga"));
            events.push((latest, event));
        }
    }
    // The sort is stable: in the same millisecond the order's own events come first, and the saga's events keep their
    // sequence.
    events.sort_by_key(|(at, _)| *at);
    OrderStory {
        order_id: id,
        saga_id: id,
        saga,
        events: events.into_iter().map(|(_, event)| event).collect(),
    }
}

fn own_event(event: OrderEvent) -> Map<String, Value> {
    let mut members = match event.detail {
        Value::Object(detail) => detail,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    members.insert("at".to_owned(), Value::from(view::time(event.at)));
    members.insert("source".to_owned(), Value::from("order"));
    members.insert("type".to_owned(), Value::from(event.kind.as_str()));
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::event::EventKind;
    use serde_json::json;

    fn own(kind: EventKind, at_ms: i64, detail: Value) -> OrderEvent {
        OrderEvent {
            order_id: Uuid::from_u128(1),
            kind,
            at: DateTime::from_timestamp_millis(at_ms).expect("time"),
            detail,
        }
    }

    fn types(story: &OrderStory) -> Vec<&str> {
        story
            .events
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect()
    }

    #[test]
    fn both_sides_make_one_line_of_time() {
        let events = vec![
            own(EventKind::Created, 1_000, json!({})),
            own(EventKind::Cancelled, 3_000, json!({"code": "out_of_stock"})),
        ];
        let saga = SagaEvents::Available(vec![
            json!({"sequence": 1, "at": "1970-01-01T00:00:01.000Z", "type": "started"}),
            json!({"sequence": 2, "at": "1970-01-01T00:00:02.000Z", "type": "step_failed"}),
            json!({"sequence": 3, "type": "of_unknown_time"}),
            json!({"sequence": 4, "at": "1970-01-01T00:00:04.000Z", "type": "compensated"}),
            json!("not an event"),
        ]);
        let story = merge(Uuid::from_u128(1), events, saga);
        assert_eq!(
            types(&story),
            [
                "created",
                "started",
                "step_failed",
                "of_unknown_time",
                "cancelled",
                "compensated"
            ]
        );
        assert_eq!(story.saga, "included");
        assert_eq!(story.events[4]["code"], "out_of_stock");
        assert_eq!(story.events[4]["source"], "order");
        assert_eq!(story.events[5]["source"], "saga");
    }

    #[test]
    fn without_the_orchestrator_the_own_events_remain() {
        let events = vec![own(EventKind::Created, 1_000, json!({}))];
        let story = merge(Uuid::from_u128(1), events, SagaEvents::Unavailable);
        assert_eq!(types(&story), ["created"]);
        assert_eq!(story.saga, "unavailable");
    }
}
