//! `POST /orders/{id}/cancel`.

use crate::harness::{PARTITIONS, TestService, cancel, order};
use axum::{body::Body, http::Method};
use saga_core::message::{ActionKind, Input, StartSaga};
use saga_messaging::kafka::home_partition;
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn a_cancellation_goes_to_the_sagas_home_partition() {
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
    // The start goes in front of the cancel once more: the one that went out with the order may still wait for a sweep.
    let same = StartSaga {
        trace: first.trace.clone(),
        ..again.clone()
    };
    assert_eq!((start_to, &same), (partition, first));
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

/// The topic's retention may have removed the start and the wish before the orchestrator read them.
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
    // One wish, however often it is sent.
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
