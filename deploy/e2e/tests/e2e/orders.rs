//! Orders with both definitions, and every way in which they end.

use crate::{PAYMENT_FIRST, e2e, shared};
use anyhow::ensure;
use futures_util::future::try_join_all;
use saga_harness::{Order, OrderRequest, Service};
use serde_json::json;
use uuid::Uuid;

e2e! {
async fn an_order_is_confirmed_and_everything_adds_up() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 10.50)).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    assert_eq!(order.body["amountMinor"], 2100);
    assert_eq!(system.payment_status(order.id).await?, "charged");
    let saga = system.saga_is(order.saga, "completed").await?;
    assert_eq!(saga["definition"], "place-order");
    assert_eq!(system.stock(product).await?, (8, 0, 2));
    Ok(())
}
}

e2e! {
async fn the_short_form_orders_one_product() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let body = json!({"customerId": Uuid::new_v4(), "productId": product, "quantity": 3, "amount": 30});
    let request = OrderRequest { customer: Uuid::new_v4(), body, headers: vec![] };
    let order = system.place_and_wait(&request).await?;
    assert_eq!(order.status(), "CONFIRMED");
    assert_eq!(order.body["amountMinor"], 3000);
    system.saga_is(order.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (7, 0, 3));
    Ok(())
}
}

e2e! {
async fn a_declined_payment_puts_the_stock_back() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 600.0)).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "payment_declined"));
    system.saga_is(order.saga, "compensated").await?;
    assert_eq!(system.stock(product).await?, (10, 0, 0));
    assert_eq!(system.payment_status(order.id).await?, "declined");
    Ok(())
}
}

e2e! {
async fn out_of_stock_cancels_and_charges_nothing() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(1).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 5.0)).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "out_of_stock"));
    system.saga_is(order.saga, "compensated").await?;
    assert_eq!(system.stock(product).await?, (1, 0, 0));
    assert_eq!(system.payment_status(order.id).await?, "none");
    Ok(())
}
}

e2e! {
async fn payment_first_confirms_and_sells() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(5).await?;
    let request = OrderRequest::one(product, 5, 1.0).definition(PAYMENT_FIRST);
    let order = system.place_and_wait(&request).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    system.saga_is(order.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (0, 0, 5));
    assert_eq!(system.payment_status(order.id).await?, "charged");
    Ok(())
}
}

e2e! {
async fn payment_first_refunds_when_out_of_stock() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(1).await?;
    let request = OrderRequest::one(product, 2, 5.0).definition(PAYMENT_FIRST);
    let order = system.place_and_wait(&request).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "out_of_stock"));
    system.saga_is(order.saga, "compensated").await?;
    assert_eq!(system.payment_status(order.id).await?, "refunded");
    assert_eq!(system.stock(product).await?, (1, 0, 0));
    Ok(())
}
}

e2e! {
async fn of_200_buyers_exactly_one_gets_the_last_item() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(1).await?;
    let requests: Vec<OrderRequest> =
        (0..200).map(|_| OrderRequest::one(product, 1, 5.0)).collect();
    let orders: Vec<Order> = try_join_all(requests.iter().map(|r| system.place_and_wait(r))).await?;
    let confirmed = orders.iter().filter(|order| order.status() == "CONFIRMED").count();
    assert_eq!(confirmed, 1);
    for order in &orders {
        let charged = system.payment_status(order.id).await? == "charged";
        assert_eq!(charged, order.status() == "CONFIRMED", "order {}", order.id);
    }
    Ok(())
}
}

e2e! {
async fn the_same_idempotency_key_gives_the_same_order_as_it_is_now() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let request = OrderRequest::one(product, 1, 5.0).header("idempotency-key", "once");
    let first = system.post_order(&request).await?;
    ensure!(first.status() == 201);
    let location = first.headers()["location"].clone();
    let second = system.post_order(&request.clone().header("prefer", "wait=20")).await?;
    assert_eq!(second.status(), 201);
    assert_eq!(second.headers()["location"], location);
    let second: serde_json::Value = second.json().await?;
    assert_eq!(second["status"], "CONFIRMED", "{second}");
    let mut other = request.clone();
    other.body["items"][0]["quantity"] = json!(2);
    assert_eq!(system.post_order(&other).await?.status(), 422);
    Ok(())
}
}

e2e! {
async fn prefer_wait_answers_with_the_final_state() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let request = OrderRequest::one(product, 1, 5.0).header("prefer", "wait=20");
    let order = system.place(&request).await?;
    assert_eq!(order.status(), "CONFIRMED");
    Ok(())
}
}

e2e! {
async fn an_orders_events_tell_its_story() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(0).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    system.saga_is(order.saga, "compensated").await?;
    let story = system.get(Service::Order, &format!("/orders/{}/events", order.id)).await?;
    let text = story.to_string();
    for word in ["step_failed", "out_of_stock", "compensation_started", "compensated"] {
        assert!(text.contains(word), "{word} is missing: {story:#}");
    }
    Ok(())
}
}
