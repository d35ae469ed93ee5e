//! Tests `POST /orders/{id}/cancel`.

use crate::harness::{PARTITIONS, TestService, cancel, order};
use axum::{
    Json, Router,
    body::Body,
    http::{Method, StatusCode},
    routing::get,
};
use chrono::{DateTime, TimeDelta, Utc};
use saga_core::message::{ActionKind, Input, StartSaga};
use saga_messaging::kafka::home_partition;
use saga_service::clock;
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

/// The statement of deploy/OPERATING.md that ends an order by hand.
const END_BY_HAND: &str = r#"
    WITH ended AS (
        UPDATE orders SET status = 'CANCELLED', ended_at = now(), reason = '{"code": "cancelled", "message": "undone by hand"}'
        WHERE id = $1 AND status = 'PENDING' RETURNING id, ended_at, reason)
    INSERT INTO order_event (order_id, kind, at, detail) SELECT id, 'cancelled', ended_at, reason FROM ended"#;

#[tokio::test]
async fn a_cancellation_is_sent_to_the_sagas_home_partition() {
    let service = TestService::start().await;
    let id = service.place(&order()).await;
    let path = format!("/orders/{id}/cancel");
    let first = service
        .post(&path, &[], &json!({"reason": "changed my mind"}))
        .await;
    assert_eq!(first.status, 202);
    let body = first.json();
    assert_eq!((first.id(), body["status"].as_str()), (id, Some("PENDING")));
    let published = service.published_soon(id, 3).await;
    let [
        (_, Input::Start(first)),
        (start_to, Input::Start(again)),
        (partition, Input::Operator(action)),
    ] = published.as_slice()
    else {
        panic!("not a start, the start again, and an action: {published:?}");
    };
    // The start is sent again before the cancel: the relay may not have sent the order's first start yet.
    let same = StartSaga {
        trace: first.trace.clone(),
        ..again.clone()
    };
    assert_eq!((start_to, &same), (partition, first));
    assert_eq!(service.published_again(id), [false, true, false]);
    assert_eq!(again.trace.correlation_id, first.trace.correlation_id);
    assert_eq!(
        *partition,
        Some(home_partition(&id.to_string(), PARTITIONS))
    );
    assert_eq!(action.kind, ActionKind::Cancel);
    assert_eq!(action.reason, "changed my mind");
    assert_eq!(
        body["cancellation"]["actionId"],
        action.action_id.to_string()
    );
    let story = service.get(&format!("/orders/{id}/events")).await.json();
    assert_eq!(story["events"][1]["type"], "cancel_requested");
    assert_eq!(story["events"][1]["reason"], "changed my mind");
}

/// The topic's retention may have deleted the start and the cancel before the orchestrator read them.
#[tokio::test]
async fn a_cancellation_that_is_asked_for_again_is_sent_again_as_the_same_action() {
    let service = TestService::start().await;
    let id = service.place(&order()).await;
    let path = format!("/orders/{id}/cancel");
    let first = service
        .post(&path, &[], &json!({"reason": "changed my mind"}))
        .await;
    service.published_soon(id, 3).await;
    let second = service.call(Method::POST, &path, &[], Body::empty()).await;
    assert_eq!(second.status, 202);
    assert_eq!(second.json()["cancellation"], first.json()["cancellation"]);
    let published = service.published_soon(id, 5).await;
    let [
        _,
        _,
        (to, Input::Operator(action)),
        (start_to, Input::Start(start)),
        (again_to, Input::Operator(again)),
    ] = published.as_slice()
    else {
        panic!("not a start, and the start and an action twice: {published:?}");
    };
    assert_eq!(start.saga_id.0, id);
    assert_eq!((start_to, again_to), (to, to));
    assert_eq!(again.action_id, action.action_id);
    assert_eq!(again.reason, action.reason);
    // Only one request is recorded, however often it is sent.
    assert_eq!(service.count("order_event").await, 2);
}

#[tokio::test]
async fn an_order_that_has_ended_cannot_be_cancelled() {
    let service = TestService::start().await;
    let confirmed = service.place(&order()).await;
    service.confirm(confirmed).await;
    let cancelled = service.place(&order()).await;
    service
        .handle(&[cancel(cancelled, "payment_declined")])
        .await;
    for (id, part) in [(confirmed, "CONFIRMED"), (cancelled, "payment_declined")] {
        let response = service
            .post(&format!("/orders/{id}/cancel"), &[], &json!({}))
            .await;
        assert_eq!(response.status, 409);
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json")
        );
        let detail = response.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(detail.contains(part), "{detail}");
    }
}

#[tokio::test]
async fn a_bad_cancellation_is_refused_and_leaves_nothing_behind() {
    let service = TestService::start().await;
    let id = service.place(&order()).await;
    let path = format!("/orders/{id}/cancel");
    let response = service.post(&path, &[], &json!({"reason": 7})).await;
    assert_eq!(
        (response.status.as_u16(), response.field().as_str()),
        (422, "/reason")
    );
    let response = service.call(Method::POST, &path, &[], "x").await;
    assert_eq!(response.status, 400);
    let unknown = format!("/orders/{}/cancel", Uuid::new_v4());
    assert_eq!(service.post(&unknown, &[], &json!({})).await.status, 404);
    assert_eq!(
        service
            .post("/orders/7/cancel", &[], &json!({}))
            .await
            .status,
        400
    );
    assert_eq!(service.count("order_event").await, 1);
    assert_eq!(service.published_soon(id, 1).await.len(), 1);
}

/// Starts an orchestrator that says from when on it starts sagas, and that knows every saga or none.
async fn orchestrator(starts_from: DateTime<Utc>, knows: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    let events = move || async move {
        if knows {
            Ok(Json(json!({"events": []})))
        } else {
            Err(StatusCode::NOT_FOUND)
        }
    };
    let overview = json!({"retention": {"startsFrom": starts_from}});
    let routes = Router::new()
        .route("/sagas/{id}/events", get(events))
        .route("/overview", get(|| async { Json(overview) }));
    tokio::spawn(async move { axum::serve(listener, routes).await.expect("served") });
    format!("http://{address}")
}

/// Places an order, and makes it `days` old.
async fn old_order(service: &TestService, days: i64) -> Uuid {
    let placed = service.place(&order()).await;
    let at = clock::now() - TimeDelta::days(days);
    let at_ms = at.timestamp_millis().unsigned_abs();
    let id = uuid::Builder::from_unix_timestamp_millis(at_ms, &[0; 10]).into_uuid();
    for statement in [
        "UPDATE orders SET id = $1 WHERE id = $2",
        "UPDATE order_event SET order_id = $1 WHERE order_id = $2",
    ] {
        sqlx::query(statement)
            .bind(id)
            .bind(placed)
            .execute(&service.pool)
            .await
            .expect(statement);
    }
    id
}

#[tokio::test]
async fn an_order_that_no_saga_can_cancel_any_more_is_refused_with_what_to_do() {
    let floor = clock::now() - TimeDelta::days(30);
    let service = TestService::with(&orchestrator(floor, false).await, u64::MAX).await;
    let id = old_order(&service, 40).await;
    let path = format!("/orders/{id}/cancel");
    let response = service.post(&path, &[], &json!({})).await;
    let problem = response.json();
    assert_eq!(
        (response.status.as_u16(), problem["type"].as_str()),
        (409, Some("/problems/below-floor"))
    );
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("by hand, and end the order"), "{detail}");
    assert_eq!(service.count("order_event").await, 1);
    assert!(service.published(id).is_empty());

    let ended = sqlx::query(END_BY_HAND)
        .bind(id)
        .execute(&service.pool)
        .await
        .expect("ended by hand");
    assert_eq!(ended.rows_affected(), 1);
    let order = service.get(&format!("/orders/{id}")).await;
    assert_eq!(order.state(), "CANCELLED");
    let again = service.post(&path, &[], &json!({})).await.json();
    assert_eq!(again["type"], "/problems/order-ended");
}

#[tokio::test]
async fn an_old_order_is_canceled_if_its_saga_is_known_or_can_start_or_the_orchestrator_is_unreachable()
 {
    let floor = clock::now() - TimeDelta::days(30);
    for (orchestrator, days) in [
        (orchestrator(floor, true).await, 40),
        (orchestrator(floor, false).await, 20),
        ("http://127.0.0.1:9".to_owned(), 40),
    ] {
        let service = TestService::with(&orchestrator, u64::MAX).await;
        let id = old_order(&service, days).await;
        let response = service
            .post(&format!("/orders/{id}/cancel"), &[], &json!({}))
            .await;
        assert_eq!(response.status, 202, "{}", response.json());
        service.published_soon(id, 2).await;
    }
}
