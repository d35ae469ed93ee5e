//! Tests that orders are accepted and that invalid ones are refused.

use crate::harness::{PARTITIONS, PATIENCE, TestService, order, order_of};
use axum::http::Method;
use chrono::TimeDelta;
use futures_util::future::join_all;
use saga_contracts::payload::OrderCreated;
use saga_core::message::Input;
use saga_messaging::kafka::home_partition;
use saga_postgres::clock::Clock;
use saga_service::clock;
use saga_test_support::environment::until;
use serde_json::{Value, json};
use uuid::Uuid;

const TABLES: [&str; 5] = ["orders", "order_event", "idempotency", "inbox", "outbox"];

#[tokio::test]
async fn an_order_is_accepted_with_all_that_belongs_to_it() {
    let service = TestService::start().await;
    let customer = Uuid::new_v4();
    let headers = [
        ("x-correlation-id", "my-correlation"),
        ("content-type", "application/json"),
    ];
    let response = service.post("/orders", &headers, &order_of(customer)).await;
    assert_eq!(response.status, 201);
    let (id, body) = (response.id(), response.json());
    assert_eq!(
        response.header("location"),
        Some(format!("/orders/{id}").as_str())
    );
    assert_eq!(body["sagaId"], id.to_string());
    assert_eq!(body["customerId"], customer.to_string());
    assert_eq!(body["status"], "PENDING");
    assert_eq!(body["amountMinor"], 2100);
    assert_eq!(id.get_version_num(), 7);
    for table in ["orders", "order_event", "inbox"] {
        assert_eq!(service.count(table).await, 1, "{table}");
    }
    let published = service.published_soon(id, 1).await;
    let (partition, Input::Start(start)) = &published[0] else {
        panic!("not a start: {published:?}");
    };
    assert_eq!(
        *partition,
        Some(home_partition(&id.to_string(), PARTITIONS))
    );
    assert_eq!(start.definition, "place-order");
    assert_eq!(start.start_type, "order.created");
    assert_eq!(start.business_key, Some(id.to_string()));
    assert_eq!(start.trace.correlation_id, "my-correlation");
    let input: OrderCreated = serde_json::from_value(start.input.clone()).expect("payload");
    assert_eq!(
        (input.order_id, input.customer_id, input.amount_minor),
        (id, customer, 2100)
    );
    assert_eq!(
        service.get(&format!("/orders/{id}")).await.body,
        response.body
    );
}

#[tokio::test]
async fn the_short_form_and_another_definition_are_accepted() {
    let service = TestService::start().await;
    let body = json!({
        "customerId": Uuid::new_v4(), "productId": Uuid::new_v4(), "quantity": 3, "amount": 10,
        "currency": "JPY", "definition": "other",
    });
    let response = service.post("/orders", &[], &body).await;
    assert_eq!(response.status, 201);
    let text = String::from_utf8(response.body.clone()).expect("text");
    assert!(
        text.contains(r#""amount":10,"amountMinor":10,"currency":"JPY""#),
        "{text}"
    );
    assert_eq!(response.json()["items"][0].get("price"), None);
    let published = service.published_soon(response.id(), 1).await;
    assert!(matches!(&published[0].1, Input::Start(start) if start.definition == "other"));
}

#[tokio::test]
async fn bad_input_is_refused_and_leaves_nothing_behind() {
    let service = TestService::start().await;
    let with = |pointer: &str, value: Value| {
        let mut body = order();
        *body.pointer_mut(pointer).expect("pointer") = value;
        body.to_string().into_bytes()
    };
    let cases: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"not json".to_vec(), 400, ""),
        (b"".to_vec(), 400, ""),
        (b"[]".to_vec(), 400, ""),
        (b"{\"customerId\": \"\xff\"}".to_vec(), 400, ""),
        (with("/customerId", json!("nobody")), 422, "/customerId"),
        (with("/customerId", json!("\u{0}")), 422, "/customerId"),
        (
            with("/items/0/quantity", json!(0)),
            422,
            "/items/0/quantity",
        ),
        (
            with("/items/0/quantity", json!(1e30)),
            422,
            "/items/0/quantity",
        ),
        (with("/items/0/price", json!(-1)), 422, "/items/0/price"),
        (with("/items/0/price", json!(0.001)), 422, "/items/0/price"),
        (with("/items", json!([])), 422, "/items"),
    ];
    for (body, status, field) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let headers = [("idempotency-key", "k"), ("prefer", "wait=5")];
        let response = service.call(Method::POST, "/orders", &headers, body).await;
        assert_eq!(response.status.as_u16(), status, "{shown}");
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(response.field(), field, "{shown}");
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(service.post("/orders", &form, &order()).await.status, 415);
    let long = "x".repeat(256);
    let response = service
        .post("/orders", &[("idempotency-key", &long)], &order())
        .await;
    assert_eq!(
        (response.status.as_u16(), response.field().as_str()),
        (400, "Idempotency-Key")
    );
    for table in TABLES {
        assert_eq!(service.count(table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn orders_that_arrive_together_share_a_transaction() {
    let service = TestService::start().await;
    let (orders, service_ref) = (vec![order(); 100], &service);
    let responses = join_all(
        orders
            .iter()
            .map(|body| async move { service_ref.post("/orders", &[], body).await }),
    )
    .await;
    assert!(responses.iter().all(|response| response.status == 201));
    assert_eq!(service.count("orders").await, 100);
    let transactions: i64 = sqlx::query_scalar("SELECT COUNT(DISTINCT xmin::text) FROM orders")
        .fetch_one(&service.pool)
        .await
        .expect("count");
    assert!(transactions <= 10, "{transactions} transactions");
}

#[tokio::test]
async fn an_order_survives_an_unavailable_broker() {
    let service = TestService::start().await;
    service.set_broker_unavailable(true);
    let id = service.place(&order()).await;
    assert_eq!(service.count("outbox").await, 1);
    assert!(service.published(id).is_empty());
    service.set_broker_unavailable(false);
    service.published_soon(id, 1).await;
    until("the outbox is empty", PATIENCE, async || {
        service.count("outbox").await == 0
    })
    .await;
}

/// A backlog of unread inputs would make every new saga wait, once per step.
#[tokio::test]
async fn inputs_that_the_orchestrator_has_not_read_push_back() {
    let service = TestService::with("http://127.0.0.1:9", 10).await;
    let now = tokio::time::Instant::now();
    service.app.pressure.look(now, 0, 11);
    let response = service.post("/orders", &[], &order()).await;
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    assert_eq!(service.count("orders").await, 0);
    service.app.pressure.look(now, 6, 5);
    service.place(&order()).await;
}

#[tokio::test]
async fn a_backlog_pushes_back() {
    let service = TestService::with("http://127.0.0.1:9", 0).await;
    service.set_broker_unavailable(true);
    service.place(&order()).await;
    let response = service.post("/orders", &[], &order()).await;
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    assert_eq!(service.count("orders").await, 1);
    service.set_broker_unavailable(false);
    until("orders are taken again", PATIENCE, async || {
        service.post("/orders", &[], &order()).await.status == 201
    })
    .await;
}

/// Starts a service on a machine whose clock is right, with a database whose clock is `ahead` of it.
async fn service_of(ahead: TimeDelta) -> TestService {
    let clock: &Clock = Box::leak(Box::new(Clock::new(clock::now)));
    clock.observe(clock::now() + ahead);
    TestService::with_clock("http://127.0.0.1:9", u64::MAX, clock).await
}

#[tokio::test]
async fn an_order_is_of_the_databases_time() {
    let service = service_of(TimeDelta::hours(2)).await;
    let id = service.place(&order()).await;
    let made = id
        .get_timestamp()
        .map(|time| time.to_unix().0.cast_signed());
    let ahead = made.unwrap_or_default() - clock::now().timestamp();
    assert!((7_100..=7_200).contains(&ahead), "{ahead} s");
}

#[tokio::test]
async fn no_order_is_taken_while_clocks_differ_so_much_that_its_saga_might_be_refused() {
    for hours in [13, -13] {
        let service = service_of(TimeDelta::hours(hours)).await;
        let response = service.post("/orders", &[], &order()).await;
        assert_eq!(response.status, 503);
        assert!(response.header("retry-after").is_some());
        let problem = response.json();
        assert_eq!(problem["type"], "/problems/clock-skew");
        let detail = problem["detail"].as_str().expect("detail");
        let side = if hours > 0 { "behind" } else { "ahead of" };
        let named = format!("s {side} the database's");
        assert!(
            detail.contains("this machine's clock is 46") && detail.contains(&named),
            "{detail}"
        );
        assert_eq!(service.count("orders").await, 0);
    }
}
