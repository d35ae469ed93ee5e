//! A message that is delivered twice has one effect.

use crate::{e2e, shared};
use saga_contracts::topic;
use saga_harness::{OrderRequest, topics};

e2e! {
async fn replaying_every_message_of_a_confirmed_order_changes_nothing() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 5.0)).await?;
    system.saga_is(order.saga, "completed").await?;
    replay_all(system, order.saga).await?;
    // A second order of the same product ends after the replayed messages, so they have been handled by then.
    let behind = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    system.saga_is(behind.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (7, 0, 3));
    assert_eq!(system.order(order.id).await?.status(), "CONFIRMED");
    assert_eq!(system.payment_status(order.id).await?, "charged");
    Ok(())
}
}

e2e! {
async fn replaying_every_message_of_a_cancelled_order_changes_nothing() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 600.0)).await?;
    system.saga_is(order.saga, "compensated").await?;
    replay_all(system, order.saga).await?;
    let behind = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    system.saga_is(behind.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (9, 0, 1));
    let order = system.order(order.id).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "payment_declined"));
    Ok(())
}
}

/// Publishes the saga's starts, replies and commands again.
async fn replay_all(system: &saga_harness::System, saga: uuid::Uuid) -> anyhow::Result<()> {
    let brokers = system.env.brokers();
    for topic in [
        topic::SAGA_INPUTS,
        topic::ORDER_COMMANDS,
        topic::INVENTORY_COMMANDS,
        topic::PAYMENT_COMMANDS,
    ] {
        let records = topics::of_saga(&brokers, topic, saga)?;
        assert!(!records.is_empty(), "no record of {saga} in {topic}");
        topics::replay(&brokers, &records).await?;
    }
    Ok(())
}
