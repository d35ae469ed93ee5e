//! Tests reading: single orders, listings, events.

use crate::harness::{PATIENCE, TestService, cancel, order, order_of};
use axum::{Json, Router, routing::get};
use order_svc::http::router;
use saga_test_support::environment::until;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use tokio::net::TcpListener;
use uuid::Uuid;

fn ids(page: &Value) -> Vec<String> {
    let orders = page["orders"].as_array().expect("orders");
    orders
        .iter()
        .map(|order| order["id"].as_str().expect("id").to_owned())
        .collect()
}

#[tokio::test]
async fn pages_show_every_order_once_newest_first() {
    let service = TestService::start().await;
    for _ in 0..25 {
        service.place(&order()).await;
    }
    let (mut path, mut seen) = ("/orders?limit=10".to_owned(), Vec::new());
    loop {
        let page = service.get(&path).await.json();
        seen.extend(ids(&page));
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/orders?limit=10&cursor={cursor}");
        // A new order is newer than the page and does not shift it.
        service.place(&order()).await;
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 25);
    assert!(seen.is_sorted_by(|newer, older| newer > older));
}

#[tokio::test]
async fn listings_are_filtered_by_status_and_customer() {
    let service = TestService::start().await;
    let customer = Uuid::new_v4();
    let mine = service.place(&order_of(customer)).await;
    let ended = service.place(&order_of(customer)).await;
    let other = service.place(&order()).await;
    service.confirm(ended).await;
    let check = async |query: String, expected: &[Uuid]| {
        let page = service.get(&format!("/orders?{query}")).await.json();
        let expected: Vec<String> = expected.iter().map(Uuid::to_string).collect();
        assert_eq!(ids(&page), expected, "{query}");
    };
    check(String::new(), &[other, ended, mine]).await;
    check(format!("customerId={customer}"), &[ended, mine]).await;
    check("status=PENDING".to_owned(), &[other, mine]).await;
    check(format!("status=CONFIRMED&customerId={customer}"), &[ended]).await;
    check("status=CANCELLED".to_owned(), &[]).await;
    let page = service
        .get(&format!("/orders?limit=1&customerId={customer}"))
        .await
        .json();
    let cursor = page["nextCursor"].as_str().expect("cursor");
    check(format!("customerId={customer}&cursor={cursor}"), &[mine]).await;
    assert_eq!(
        service
            .get(&format!("/orders?cursor={cursor}"))
            .await
            .status,
        400
    );
    assert_eq!(service.get("/orders?color=red").await.field(), "color");
    assert_eq!(service.get("/orders?status=%00").await.field(), "status");
    assert_eq!(service.get("/orders?status=%ff").await.status, 400);
}

#[tokio::test]
async fn unknown_orders_are_not_found() {
    let service = TestService::start().await;
    let unknown = Uuid::new_v4();
    for path in [
        format!("/orders/{unknown}"),
        format!("/orders/{unknown}/events"),
    ] {
        assert_eq!(service.get(&path).await.status, 404, "{path}");
    }
    for path in ["/orders/7", "/orders/%00", "/orders/7/events"] {
        let response = service.get(path).await;
        assert_eq!(
            (response.status.as_u16(), response.field().as_str()),
            (400, "id"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn events_need_no_orchestrator() {
    let service = TestService::start().await;
    let id = service.place(&order()).await;
    service.handle(&[cancel(id, "out_of_stock")]).await;
    let response = service.get(&format!("/orders/{id}/events")).await;
    assert_eq!(response.status, 200);
    let story = response.json();
    assert_eq!(story["saga"], "unavailable");
    assert_eq!(story["events"][0]["type"], "created");
    assert_eq!(story["events"][1]["type"], "cancelled");
    assert_eq!(story["events"][1]["code"], "out_of_stock");
}

#[tokio::test]
async fn events_are_merged_with_the_sagas() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    let saga = json!([
        {"sequence": 1, "at": "2000-01-01T00:00:00.000Z", "type": "of_long_ago"},
        {"sequence": 2, "at": "2999-01-01T00:00:00.000Z", "type": "action_decided",
         "verdict": "past_pivot"},
    ]);
    let orchestrator = Router::new().route("/sagas/{id}/events", get(|| async { Json(saga) }));
    let serving =
        tokio::spawn(async move { axum::serve(listener, orchestrator).await.expect("served") });
    let service = TestService::with(&format!("http://{address}/"), u64::MAX).await;
    let id = service.place(&order()).await;
    let story = until("the orchestrator answers", PATIENCE, async || {
        let story = service.get(&format!("/orders/{id}/events")).await.json();
        Some(story).filter(|story| story["saga"] == "included")
    })
    .await;
    let types: Vec<&str> = story["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(types, ["of_long_ago", "created", "action_decided"]);
    assert_eq!(story["events"][2]["verdict"], "past_pivot");
    serving.abort();
}

#[tokio::test]
async fn the_api_describes_every_endpoint() {
    let service = TestService::start().await;
    let document = router(Arc::clone(&service.app)).into_openapi();
    let document = serde_json::to_value(document).expect("JSON");
    for (path, method) in [
        ("/orders", "post"),
        ("/orders", "get"),
        ("/orders/{id}", "get"),
        ("/orders/{id}/events", "get"),
        ("/orders/{id}/cancel", "post"),
    ] {
        let responses = &document["paths"][path][method]["responses"];
        assert!(
            responses.as_object().is_some_and(|all| all.len() > 2),
            "{method} {path}"
        );
    }
    let text = document.to_string();
    for name in ["PlaceOrder", "Problem", "Order", "OrderItem"] {
        assert!(
            !document["components"]["schemas"][name].is_null(),
            "{name}: {text}"
        );
    }
}
