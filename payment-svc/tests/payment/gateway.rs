//! Tests the simulated gateway and its ledger.

use crate::fixture::{approved, database, gateway};
use anyhow::Result;
use futures_util::future::join_all;
use payment_svc::{
    domain::Operation,
    gateway::{Gateway, GatewayAnswer, GatewayRequest},
};
use serde_json::json;
use uuid::Uuid;

fn request(amount_minor: i64) -> GatewayRequest {
    GatewayRequest {
        operation: Operation::Charge,
        order_id: Uuid::from_u128(1),
        customer_id: Uuid::from_u128(2),
        amount_minor,
        currency: "EUR".to_owned(),
        product_ids: vec![Uuid::from_u128(3)],
        charge_reference: None,
    }
}

#[tokio::test]
async fn a_key_is_charged_once_however_often_it_is_asked_also_after_a_restart() -> Result<()> {
    let pool = database().await?;
    let before = gateway(&pool, &json!([]))?;
    let first = before.call("key", &request(500)).await;
    assert!(matches!(first, GatewayAnswer::Approved { .. }), "{first:?}");
    assert_eq!(before.call("key", &request(500)).await, first);
    drop(before);
    let after = gateway(&pool, &json!([{"effect": "decline"}]))?;
    assert_eq!(after.call("key", &request(500)).await, first);
    let other = after.call("another key", &request(500)).await;
    assert!(matches!(other, GatewayAnswer::Declined { .. }), "{other:?}");
    assert_eq!(approved(&pool).await?, (500, 0));
    Ok(())
}

#[tokio::test]
async fn calls_that_share_a_commit_get_their_own_answers() -> Result<()> {
    let pool = database().await?;
    let (one, two) = (gateway(&pool, &json!([]))?, gateway(&pool, &json!([]))?);
    // Ten keys, each called ten times, on two instances.
    let asked = join_all((0..100_u32).map(|n| {
        let (gateway, key) = (
            if n % 3 == 0 { &one } else { &two },
            format!("key {}", n % 10),
        );
        async move {
            let answer = gateway.call(&key, &request(100)).await;
            let GatewayAnswer::Approved { reference } = answer else {
                panic!("{answer:?}")
            };
            (key, reference)
        }
    }));
    let mut answers = asked.await;
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 10);
    assert_eq!(approved(&pool).await?, (1_000, 0));
    Ok(())
}

#[tokio::test]
async fn a_decline_is_remembered_too() -> Result<()> {
    let pool = database().await?;
    let strict = gateway(
        &pool,
        &json!([{"effect": "decline", "times": 1, "message": "no"}]),
    )?;
    let first = strict.call("key", &request(500)).await;
    let expected = GatewayAnswer::Declined {
        code: "payment_declined".to_owned(),
        message: "no".to_owned(),
    };
    assert_eq!(first, expected);
    assert_eq!(strict.call("key", &request(500)).await, expected);
    let over = strict.call("large", &request(100_001)).await;
    let GatewayAnswer::Declined { message, .. } = over else {
        panic!("{over:?}")
    };
    assert!(message.contains("1000.00 EUR"), "{message}");
    assert_eq!(approved(&pool).await?, (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_timed_out_call_took_effect_and_a_repetition_returns_its_result() -> Result<()> {
    let pool = database().await?;
    let slow = gateway(&pool, &json!([{"effect": "time_out", "times": 2}]))?;
    for _ in 0..2 {
        let lost = slow.call("key", &request(500)).await;
        assert!(
            matches!(lost, GatewayAnswer::Indeterminate { .. }),
            "{lost:?}"
        );
        assert_eq!(approved(&pool).await?, (500, 0));
    }
    let told = slow.call("key", &request(500)).await;
    assert!(matches!(told, GatewayAnswer::Approved { .. }), "{told:?}");
    assert_eq!(approved(&pool).await?, (500, 0));
    Ok(())
}

#[tokio::test]
async fn an_answered_key_does_not_fail_afterwards() -> Result<()> {
    let pool = database().await?;
    let first = gateway(&pool, &json!([]))?.call("key", &request(500)).await;
    let broken = gateway(
        &pool,
        &json!([{"effect": "error", "message": "out of order"}]),
    )?;
    assert_eq!(broken.call("key", &request(500)).await, first);
    let failed = broken.call("new key", &request(500)).await;
    assert_eq!(
        failed,
        GatewayAnswer::Failed {
            message: "out of order".to_owned()
        }
    );
    assert_eq!(approved(&pool).await?, (500, 0));
    Ok(())
}

/// A caller that received a failure uses another key. If a call with the first key is still in flight, it must not move
/// money after that.
#[tokio::test]
async fn a_key_that_failed_never_moves_money() -> Result<()> {
    let pool = database().await?;
    let broken = gateway(
        &pool,
        &json!([{"effect": "error", "times": 1, "message": "out of order"}]),
    )?;
    let failed = GatewayAnswer::Failed {
        message: "out of order".to_owned(),
    };
    assert_eq!(broken.call("key", &request(500)).await, failed);
    assert_eq!(broken.call("key", &request(500)).await, failed);
    assert_eq!(approved(&pool).await?, (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_key_is_good_for_one_payment_only() -> Result<()> {
    let pool = database().await?;
    let gateway = gateway(&pool, &json!([]))?;
    gateway.call("key", &request(500)).await;
    let other = gateway.call("key", &request(501)).await;
    let GatewayAnswer::Declined { code, .. } = other else {
        panic!("{other:?}")
    };
    assert_eq!(code, "idempotency_conflict");
    Ok(())
}

#[tokio::test]
async fn an_error_limited_to_once_occurs_once_across_processes() -> Result<()> {
    let pool = database().await?;
    let once = json!([{"effect": "error", "times": 1}]);
    let before = gateway(&pool, &once)?;
    let first = before.call("key/1", &request(500)).await;
    assert!(matches!(first, GatewayAnswer::Failed { .. }), "{first:?}");
    let after = gateway(&pool, &once)?;
    assert_eq!(after.call("key/1", &request(500)).await, first);
    let second = after.call("key/2", &request(500)).await;
    assert!(
        matches!(second, GatewayAnswer::Approved { .. }),
        "{second:?}"
    );
    Ok(())
}
