//! Tests `Idempotency-Key`.

use crate::harness::{TestService, order, order_of};
use futures_util::future::join_all;
use order_svc::{
    domain::order::{Order, OrderStatus},
    intake::batch::{Idempotency, Job, Outcome},
    store,
};
use saga_service::clock;
use serde_json::json;
use uuid::Uuid;

const KEY: [(&str, &str); 1] = [("idempotency-key", "once")];

#[tokio::test]
async fn the_same_request_gets_the_order_that_it_made_as_it_is_now() {
    let service = TestService::start().await;
    let body = order();
    let first = service.post("/orders", &KEY, &body).await;
    assert_eq!(
        (first.status.as_u16(), first.state()),
        (201, "PENDING".to_owned())
    );
    let second = service.post("/orders", &KEY, &body).await;
    assert_eq!(
        (second.status, second.headers),
        (first.status, first.headers.clone())
    );
    assert_eq!(second.body, first.body, "nothing has happened to the order");
    service.confirm(first.id()).await;
    let third = service.post("/orders", &KEY, &body).await;
    assert_eq!(third.status, first.status);
    assert_eq!(third.header("location"), first.header("location"));
    assert_eq!(
        (third.id(), third.state()),
        (first.id(), "CONFIRMED".to_owned())
    );
    let shown = service.get(&format!("/orders/{}", first.id())).await;
    assert_eq!(third.body, shown.body);
    assert_eq!(service.count("orders").await, 1);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let service = TestService::start().await;
    let mut body = order();
    assert_eq!(service.post("/orders", &KEY, &body).await.status, 201);
    body["items"][0]["quantity"] = json!(3);
    let response = service.post("/orders", &KEY, &body).await;
    assert_eq!(response.status, 422);
    assert_eq!(response.json()["type"], "/problems/idempotency-key-reused");
    assert_eq!(service.count("orders").await, 1);
}

#[tokio::test]
async fn a_key_belongs_to_its_customer() {
    let service = TestService::start().await;
    let first = service.post("/orders", &KEY, &order()).await;
    let second = service.post("/orders", &KEY, &order()).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_ne!(first.id(), second.id());
}

#[tokio::test]
async fn concurrent_requests_with_one_key_make_one_order() {
    let service = TestService::start().await;
    let (body, service) = (&order(), &service);
    let requests = (0..50).map(|_| service.post("/orders", &KEY, body));
    let responses = join_all(requests).await;
    for response in &responses {
        assert_eq!(response.status, 201);
        assert_eq!(response.body, responses[0].body);
    }
    assert_eq!(service.count("orders").await, 1);
    assert_eq!(service.published_soon(responses[0].id(), 1).await.len(), 1);
}

fn job(customer_id: Uuid, key: Option<&str>, hash: u8) -> Job {
    Job {
        order: Order {
            id: clock::new_id(),
            customer_id,
            status: OrderStatus::Pending,
            definition: "place-order".to_owned(),
            items: Vec::new(),
            amount_minor: 1,
            currency: saga_contracts::money::CurrencyUnit::from_code("EUR").expect("currency"),
            home_partition: 0,
            correlation_id: "c".to_owned(),
            created_at: clock::now(),
            ended_at: None,
            reason: None,
        },
        idempotency: key.map(|key| Idempotency {
            key: key.to_owned(),
            request_hash: [hash; 32],
        }),
        traceparent: String::new(),
    }
}

#[tokio::test]
async fn equal_keys_in_one_batch_are_folded() {
    let service = TestService::start().await;
    let customer = Uuid::new_v4();
    let jobs = vec![
        job(customer, Some("a"), 1),
        job(customer, None, 1),
        job(customer, Some("a"), 1),
        job(customer, Some("a"), 2),
    ];
    let first = jobs[0].order.id;
    let outcomes = service.take_in(jobs).await;
    assert!(
        matches!(
            outcomes.as_slice(),
            [
                Outcome::Accepted,
                Outcome::Accepted,
                Outcome::Existing(id),
                Outcome::KeyReused,
            ] if *id == first
        ),
        "{outcomes:?}"
    );
    assert_eq!(service.count("orders").await, 2);
}

#[tokio::test]
async fn a_value_that_the_database_refuses_fails_alone() {
    let service = TestService::start().await;
    let customer = Uuid::new_v4();
    let mut bad = job(customer, Some("bad"), 1);
    bad.order.amount_minor = -1;
    let outcomes = service
        .take_in(vec![
            job(customer, None, 1),
            bad,
            job(customer, Some("good"), 1),
        ])
        .await;
    assert!(
        matches!(
            outcomes.as_slice(),
            [Outcome::Accepted, Outcome::Failed(_), Outcome::Accepted]
        ),
        "{outcomes:?}"
    );
    assert_eq!(service.count("orders").await, 2);
    assert_eq!(service.count("idempotency").await, 1);
}

#[tokio::test]
async fn copies_of_the_service_that_get_one_key_at_once_agree() {
    let service = TestService::start().await;
    let customer = Uuid::new_v4();
    let attempts = (0..8).map(|_| {
        let intake = service.intake.clone();
        async move {
            intake
                .take_in(vec![job(customer, Some("a"), 1)])
                .await
                .expect("taken")
        }
    });
    let outcomes = join_all(attempts).await.concat();
    let accepted = outcomes
        .iter()
        .filter(|one| matches!(one, Outcome::Accepted))
        .count();
    let existing = outcomes
        .iter()
        .filter(|one| matches!(one, Outcome::Existing(_)))
        .count();
    assert_eq!((accepted, existing), (1, 7), "{outcomes:?}");
}

#[tokio::test]
async fn a_key_is_free_again_after_its_day() {
    let service = TestService::start().await;
    let body = order_of(Uuid::new_v4());
    let first = service.post("/orders", &KEY, &body).await;
    service
        .run_sql("UPDATE idempotency SET created_at = created_at - INTERVAL '23 hours 59 minutes'")
        .await;
    assert_eq!(service.post("/orders", &KEY, &body).await.id(), first.id());
    service
        .run_sql("UPDATE idempotency SET created_at = created_at - INTERVAL '2 minutes'")
        .await;
    let second = service.post("/orders", &KEY, &body).await;
    assert_eq!(second.status, 201);
    assert_ne!(second.id(), first.id());
    let mut connection = service.pool.acquire().await.expect("connection");
    assert_eq!(
        store::idempotency::forget(&mut connection, 10)
            .await
            .expect("forgot"),
        0
    );
    service
        .run_sql("UPDATE idempotency SET created_at = created_at - INTERVAL '25 hours'")
        .await;
    assert_eq!(
        store::idempotency::forget(&mut connection, 10)
            .await
            .expect("forgot"),
        1
    );
    assert_eq!(service.count("idempotency").await, 0);
}
