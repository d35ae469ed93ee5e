//! A second saga about an order that already has a saga moves nothing of the order, whatever state the order is in.

use crate::{PAYMENT_FIRST, alone, e2e, shared};
use anyhow::{Context, Result, ensure};
use saga_contracts::{definition::PLACE_ORDER, fault_code::ORDER_OF_ANOTHER_SAGA};
use saga_harness::{OrderRequest, Service, System, system::PATIENCE};
use saga_test_support::environment::until;
use serde_json::json;
use uuid::Uuid;

/// An amount above the gateway's limit.
const DECLINED: i64 = 150_000;

/// Starts another saga about the order, with a different product.
async fn begin(
    system: &System,
    definition: &str,
    order: Uuid,
    product: Uuid,
    amount_minor: i64,
) -> Result<Uuid> {
    let input = json!({
        "orderId": order,
        "customerId": Uuid::new_v4(),
        "items": [{"productId": product, "quantity": 1, "unitPriceMinor": amount_minor}],
        "amountMinor": amount_minor,
        "currency": "EUR",
    });
    let key = format!("again-{}", Uuid::new_v4());
    let response = system
        .http
        .post(system.url(Service::Orchestrator, "/sagas"))
        .json(&json!({"definition": definition, "businessKey": key, "input": input}))
        .send()
        .await?;
    let status = response.status();
    let body: serde_json::Value = response.json().await?;
    ensure!(status == 202, "POST /sagas answered {status}: {body}");
    let id = body["id"].as_str().context("an id")?;
    Ok(id.parse()?)
}

async fn is_refused(system: &System, saga: Uuid) -> Result<()> {
    let ended = system.saga_is(saga, "compensated").await?;
    assert_eq!(ended["cause"]["code"], ORDER_OF_ANOTHER_SAGA, "{ended:#}");
    Ok(())
}

e2e! {
async fn another_saga_gives_back_nothing_of_a_confirmed_order() {
    let (system, _guard) = shared().await;
    let (product, beside) = (system.stock_product(10).await?, system.stock_product(5).await?);
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 5.0)).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    let mut all = vec![order.id];
    for definition in [PLACE_ORDER, PAYMENT_FIRST] {
        for amount in [100, DECLINED] {
            let saga = begin(system, definition, order.id, beside, amount).await?;
            is_refused(system, saga).await?;
            all.push(saga);
        }
    }
    assert_eq!(system.stock(product).await?, (8, 0, 2));
    assert_eq!(system.stock(beside).await?, (5, 0, 0));
    assert_eq!(system.payment_status(order.id).await?, "charged");
    assert_eq!(system.order(order.id).await?.status(), "CONFIRMED");
    assert_eq!(system.audited(&all).await?, []);
    Ok(())
}
}

e2e! {
async fn another_saga_neither_ends_nor_undoes_a_pending_order() {
    let (system, _guard) = alone().await;
    let (product, beside) = (system.stock_product(10).await?, system.stock_product(5).await?);
    system.stop(Service::Payment)?;
    let order = system.place(&OrderRequest::one(product, 2, 5.0)).await?;
    until("stock is reserved", PATIENCE, || async {
        ensure!(system.stock(product).await? == (8, 2, 0));
        Ok(())
    })
    .await;
    let stock_first = begin(system, PLACE_ORDER, order.id, beside, 100).await?;
    is_refused(system, stock_first).await?;
    assert_eq!(system.stock(product).await?, (8, 2, 0));
    let payment_first = begin(system, PAYMENT_FIRST, order.id, beside, 100).await?;
    system.saga_is(payment_first, "running").await?;
    system.restart(Service::Payment).await?;
    is_refused(system, payment_first).await?;
    let order = system.ended(order.id).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    system.saga_is(order.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (8, 0, 2));
    assert_eq!(system.stock(beside).await?, (5, 0, 0));
    assert_eq!(system.audited(&[order.id, stock_first, payment_first]).await?, []);
    Ok(())
}
}

e2e! {
/// The order ended before its saga had reserved or charged anything, so neither service knows the order.
async fn another_saga_charges_nothing_for_a_cancelled_order() {
    let (system, _guard) = shared().await;
    let (product, beside) = (system.stock_product(1).await?, system.stock_product(5).await?);
    let order = system.place_and_wait(&OrderRequest::one(product, 2, 5.0)).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "out_of_stock"));
    let mut all = vec![order.id];
    for definition in [PLACE_ORDER, PAYMENT_FIRST] {
        let saga = begin(system, definition, order.id, beside, 100).await?;
        is_refused(system, saga).await?;
        all.push(saga);
    }
    assert_eq!(system.payment_status(order.id).await?, "none");
    assert_eq!(system.stock(beside).await?, (5, 0, 0));
    let order = system.order(order.id).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "out_of_stock"));
    assert_eq!(system.audited(&all).await?, []);
    Ok(())
}
}
