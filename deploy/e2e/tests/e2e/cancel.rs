//! Orders that are cancelled before, during and after the pivot.

use crate::{alone, e2e, shared};
use saga_harness::{OrderRequest, Service};

e2e! {
async fn a_cancel_before_the_pivot_puts_everything_back() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(10).await?;
    system.stop(Service::Inventory)?;
    let order = system.place(&OrderRequest::one(product, 2, 5.0)).await?;
    system.saga_is(order.saga, "running").await?;
    let (status, body) = system.cancel(order.id).await?;
    assert_eq!(status, 202, "{body}");
    system.saga_is(order.saga, "compensating").await?;
    system.restart(Service::Inventory).await?;
    let order = system.ended(order.id).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "cancelled"));
    system.saga_is(order.saga, "compensated").await?;
    assert_eq!(system.stock(product).await?, (10, 0, 0));
    assert_eq!(system.payment_status(order.id).await?, "none");
    Ok(())
}
}

e2e! {
async fn a_cancel_during_the_pivot_waits_for_its_outcome() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(10).await?;
    system.stop(Service::Payment)?;
    let order = system.place(&OrderRequest::one(product, 2, 5.0)).await?;
    saga_test_support::environment::until("stock is reserved", saga_harness::system::PATIENCE, || async {
        anyhow::ensure!(system.stock(product).await? == (8, 2, 0));
        Ok(())
    })
    .await;
    let (status, body) = system.cancel(order.id).await?;
    assert_eq!(status, 202, "{body}");
    system.restart(Service::Payment).await?;
    // The charge is in the log before the cancellation, so the charge's outcome decides.
    let order = system.ended(order.id).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    assert_eq!(system.payment_status(order.id).await?, "charged");
    system.saga_is(order.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (8, 0, 2));
    let story = system.get(Service::Order, &format!("/orders/{}/events", order.id)).await?;
    assert!(story.to_string().contains("past_pivot"), "{story:#}");
    Ok(())
}
}

e2e! {
async fn a_cancel_after_the_end_is_refused_with_the_reason() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    let (status, body) = system.cancel(order.id).await?;
    assert_eq!(status, 409, "{body}");
    assert!(body["detail"].as_str().unwrap_or_default().contains("CONFIRMED"), "{body}");
    Ok(())
}
}
