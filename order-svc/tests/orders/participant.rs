//! Tests the participant's statements.

use crate::harness::{TestService, cancel, confirm, order};
use saga_test_support::participant::Reaction;
use uuid::Uuid;

#[tokio::test]
async fn a_batch_ends_its_orders_and_an_end_is_final() {
    let service = TestService::start().await;
    let (one, two) = (service.place(&order()).await, service.place(&order()).await);
    let batch = [
        confirm(two),
        cancel(one, "out_of_stock"),
        confirm(one),
        confirm(Uuid::new_v4()),
    ];
    let answers = service.handle(&batch).await;
    assert!(
        matches!(&answers[0], Reaction::Success { reply_type, .. } if reply_type == "order.confirmed")
    );
    assert!(
        matches!(&answers[1], Reaction::Success { reply_type, .. } if reply_type == "order.cancelled")
    );
    assert!(matches!(&answers[2], Reaction::Failure { fault } if fault.code == "order_ended"));
    assert!(matches!(&answers[3], Reaction::Error { fault } if fault.code == "unknown_order"));
    let order = service.get(&format!("/orders/{one}")).await.json();
    assert_eq!(order["status"], "CANCELLED");
    assert_eq!(order["reason"]["code"], "out_of_stock");
    assert!(order["endedAt"].is_string());
    let answers = service.handle(&[cancel(two, "late"), confirm(one)]).await;
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Reaction::Failure { .. })),
        "{answers:?}"
    );
    let order = service.get(&format!("/orders/{two}")).await.json();
    assert_eq!(order["status"], "CONFIRMED");
    assert_eq!(order.get("reason"), None);
    assert_eq!(service.count("order_event").await, 4);
}

#[tokio::test]
async fn batches_that_share_orders_never_deadlock() {
    let service = TestService::start().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(service.place(&order()).await);
    }
    let (there, back): (Vec<_>, Vec<_>) = ids
        .iter()
        .zip(ids.iter().rev())
        .map(|(a, b)| (confirm(*a), confirm(*b)))
        .unzip();
    let (first, second) = tokio::join!(service.handle(&there), service.handle(&back));
    for answer in first.iter().chain(&second) {
        assert!(matches!(answer, Reaction::Success { .. }), "{answer:?}");
    }
    assert_eq!(service.count("order_event").await, 40);
}
