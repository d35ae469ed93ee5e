//! Tests `Prefer: wait`.

use crate::harness::{PATIENCE, TestService, cancel, order};
use order_svc::intake::waiting::Waiters;
use saga_test_support::environment::until;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

const WAIT: [(&str, &str); 2] = [("prefer", "wait=20"), ("idempotency-key", "once")];

/// Waits until the only order exists, and returns its id.
async fn placed(service: &TestService) -> Uuid {
    until("the order is there", PATIENCE, async || {
        let page = service.get("/orders").await.json();
        page["orders"][0]["id"]
            .as_str()
            .and_then(|id| id.parse().ok())
    })
    .await
}

#[tokio::test]
async fn a_repetition_waits_with_the_first_request_and_both_get_the_final_order() {
    let service = TestService::start().await;
    let body = order();
    let started = Instant::now();
    let ending = async {
        let id = placed(&service).await;
        let early = service.post("/orders", &WAIT[1..], &body).await;
        assert_eq!(
            (early.status.as_u16(), early.state()),
            (201, "PENDING".to_owned())
        );
        let repetition = service.post("/orders", &WAIT, &body);
        let confirming = async {
            until("both wait", PATIENCE, async || {
                Some(()).filter(|()| service.app.waiters.count() == 2)
            })
            .await;
            service.confirm(id).await;
        };
        tokio::join!(repetition, confirming).0
    };
    let (first, repetition) = tokio::join!(service.post("/orders", &WAIT, &body), ending);
    assert_eq!(
        (first.status.as_u16(), first.state()),
        (201, "CONFIRMED".to_owned())
    );
    assert_eq!(first.header("preference-applied"), Some("wait=20"));
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "it did not wait for the deadline"
    );
    for again in [repetition, service.post("/orders", &WAIT, &body).await] {
        assert_eq!(
            (again.status, &again.headers),
            (first.status, &first.headers)
        );
        assert_eq!(again.body, first.body);
    }
}

#[tokio::test]
async fn a_cancelled_order_ends_the_wait_with_its_reason() {
    let service = TestService::start().await;
    let ending = async {
        let id = placed(&service).await;
        service.handle(&[cancel(id, "payment_declined")]).await;
    };
    let body = order();
    let (response, ()) = tokio::join!(
        service.post("/orders", &[("prefer", "wait=20")], &body),
        ending
    );
    assert_eq!(response.json()["status"], "CANCELLED");
    assert_eq!(response.json()["reason"]["code"], "payment_declined");
}

#[tokio::test]
async fn an_expired_wait_answers_with_the_current_order() {
    let service = TestService::start().await;
    let (headers, body) = ([("prefer", "wait=1"), ("idempotency-key", "once")], order());
    let first = service.post("/orders", &headers, &body).await;
    assert_eq!(
        (first.status.as_u16(), first.state()),
        (201, "PENDING".to_owned())
    );
    let second = service.post("/orders", &headers, &body).await;
    assert_eq!(
        (second.status, second.body),
        (first.status, first.body.clone())
    );
    service.confirm(first.id()).await;
    for headers in [&headers[..], &headers[1..]] {
        let again = service.post("/orders", headers, &body).await;
        assert_eq!(
            (again.id(), again.state()),
            (first.id(), "CONFIRMED".to_owned())
        );
    }
}

#[tokio::test]
async fn one_look_ends_every_wait_for_an_order_that_has_ended() {
    let service = TestService::start().await;
    let waiters = Arc::new(Waiters::default());
    let mut tickets = Vec::new();
    for n in 0..10 {
        let id = service.place(&order()).await;
        // Two requests wait for each order.
        for _ in 0..2 {
            tickets.push((n, waiters.register(id).expect("a place")));
        }
        if n % 2 == 0 {
            service.confirm(id).await;
        }
    }
    waiters.tick(&service.pool).await.expect("looked");
    for (n, ticket) in tickets {
        let ended = ticket.wait(Instant::now()).await;
        let status = ended.map(|body| {
            let body: Value = serde_json::from_str(&body).expect("JSON");
            body["status"].as_str().map(ToOwned::to_owned)
        });
        let expected = (n % 2 == 0).then(|| Some("CONFIRMED".to_owned()));
        assert_eq!(status, expected, "order {n}");
    }
}
