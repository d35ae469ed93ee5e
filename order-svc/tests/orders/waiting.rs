//! `Prefer: wait`.

use crate::harness::{PATIENCE, TestService, cancel, order};
use order_svc::intake::waiting::{Settled, Waiters};
use saga_testkit::environment::until;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

const WAIT: [(&str, &str); 2] = [("prefer", "wait=20"), ("idempotency-key", "once")];

/// The only order there is, once it is there.
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
async fn a_waiting_request_gets_the_final_order_and_so_does_its_duplicate() {
    let service = TestService::start().await;
    let body = order();
    let started = Instant::now();
    let ending = async {
        let id = placed(&service).await;
        let early = service.post("/orders", &WAIT, &body).await;
        assert_eq!(early.status, 409, "the first request is not answered yet");
        assert!(early.header("retry-after").is_some());
        service.confirm(id).await;
    };
    let (first, ()) = tokio::join!(service.post("/orders", &WAIT, &body), ending);
    assert_eq!(first.status, 201);
    assert_eq!(first.json()["status"], "CONFIRMED");
    assert_eq!(first.header("preference-applied"), Some("wait=20"));
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "it did not wait for the deadline"
    );
    let second = service.post("/orders", &WAIT, &body).await;
    assert_eq!((second.status, second.body), (first.status, first.body));
    assert_eq!(second.headers, first.headers);
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
async fn a_wait_that_is_over_answers_with_the_order_as_it_stands() {
    let service = TestService::start().await;
    let (headers, body) = ([("prefer", "wait=1"), ("idempotency-key", "once")], order());
    let first = service.post("/orders", &headers, &body).await;
    assert_eq!(
        (first.status.as_u16(), first.json()["status"].as_str()),
        (201, Some("PENDING"))
    );
    service.confirm(first.id()).await;
    let second = until(
        "the key is free of its first request",
        PATIENCE,
        async || {
            let response = service.post("/orders", &headers, &body).await;
            Some(response).filter(|response| response.status != 409)
        },
    )
    .await;
    // What was sent, not what became of it since.
    assert_eq!((second.status, second.body), (first.status, first.body));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_sent() {
    let service = TestService::start().await;
    let body = order();
    let first = service
        .post("/orders", &[("idempotency-key", "once")], &body)
        .await;
    let customer: Uuid = body["customerId"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("customer");
    service.confirm(first.id()).await;
    let waiters = Arc::new(Waiters::default());
    // Its time was over when it was committed: a duplicate may have been answered already.
    let key = Some((customer, "once".to_owned()));
    let ticket = waiters.register(first.id(), key).expect("a place");
    waiters.tick(&service.pool).await.expect("looked");
    let settled = ticket.wait(Instant::now() + PATIENCE).await;
    assert_eq!(settled, Settled::Initial);
    let second = service
        .post("/orders", &[("idempotency-key", "once")], &body)
        .await;
    assert_eq!(second.body, first.body);
}

#[tokio::test]
async fn one_look_settles_everyone_whose_order_has_ended() {
    let service = TestService::start().await;
    let waiters = Arc::new(Waiters::default());
    let mut tickets = Vec::new();
    for n in 0..10 {
        let id = service.place(&order()).await;
        tickets.push(waiters.register(id, None).expect("a place"));
        if n % 2 == 0 {
            service.confirm(id).await;
        }
    }
    waiters.tick(&service.pool).await.expect("looked");
    for (n, ticket) in tickets.into_iter().enumerate() {
        match ticket.wait(Instant::now()).await {
            Settled::Final(body) => {
                let body: Value = serde_json::from_str(&body).expect("JSON");
                assert_eq!((body["status"].as_str(), n % 2), (Some("CONFIRMED"), 0));
            }
            Settled::Initial => assert_eq!(n % 2, 1),
            Settled::Unclear => panic!("nothing was interrupted"),
        }
    }
}
