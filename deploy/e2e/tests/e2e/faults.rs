//! Participants that are stopped for a while, and services that are killed.

use crate::{alone, e2e};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE};
use saga_test_support::environment::until;
use serde_json::Value;

e2e! {
async fn inventory_away_and_back_loses_nothing() {
    away_and_back(Service::Inventory, "inventory").await
}
}

e2e! {
async fn payment_away_and_back_loses_nothing() {
    away_and_back(Service::Payment, "payment").await
}
}

/// order-svc also accepts the orders. They are placed first, and order-svc is stopped while stock is being reserved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_order_service_loses_nothing() -> Result<()> {
    let (system, _guard) = alone().await;
    let product = system.stock_product(100).await?;
    system.stop(Service::Inventory)?;
    let orders = place_many(system, product, 10).await?;
    system.stop(Service::Order)?;
    system.restart(Service::Inventory).await?;
    for order in &orders {
        not_picked_up(system, order, "order").await?;
    }
    system.restart(Service::Order).await?;
    all_confirmed_without_retries(system, &orders).await?;
    assert_eq!(system.stock(product).await?, (90, 0, 10));
    Ok(())
}

async fn away_and_back(service: Service, participant: &str) -> Result<()> {
    let (system, _guard) = alone().await;
    let product = system.stock_product(100).await?;
    system.stop(service).context("stop")?;
    // inventory-svc created the stock before it was stopped, and is not needed until it runs again.
    let orders = place_many(system, product, 10).await?;
    for order in &orders {
        not_picked_up(system, order, participant).await?;
        assert_eq!(system.order(order.id).await?.status(), "PENDING");
    }
    system.restart(service).await?;
    all_confirmed_without_retries(system, &orders).await?;
    assert_eq!(system.stock(product).await?, (90, 0, 10));
    Ok(())
}

async fn place_many(system: &System, product: uuid::Uuid, count: usize) -> Result<Vec<Order>> {
    let requests: Vec<_> = (0..count)
        .map(|_| OrderRequest::one(product, 1, 5.0))
        .collect();
    try_join_all(requests.iter().map(|request| system.place(request))).await
}

async fn not_picked_up(system: &System, order: &Order, participant: &str) -> Result<()> {
    let words = format!("not picked up by {participant}, since ");
    until(&words, PATIENCE, || async {
        let saga = system.saga(order.saga).await?;
        ensure!(
            saga["waitingOn"]["text"].to_string().contains(&words),
            "{saga:#}"
        );
        Ok(())
    })
    .await;
    Ok(())
}

async fn all_confirmed_without_retries(system: &System, orders: &[Order]) -> Result<()> {
    for order in orders {
        let order = system.ended(order.id).await?;
        assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
        let saga = system.saga_is(order.saga, "completed").await?;
        for attempt in attempts(&saga) {
            assert_eq!(attempt["attempt"], 1, "a needless retry: {saga:#}");
            assert_ne!(
                attempt["direction"], "compensation",
                "a needless compensation: {saga:#}"
            );
        }
    }
    Ok(())
}

fn attempts(saga: &Value) -> Vec<&Value> {
    saga["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|step| step["attempts"].as_array().into_iter().flatten())
        .collect()
}

e2e! {
async fn an_orchestrator_killed_in_the_middle_finishes_every_order_when_it_is_back() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(30).await?;
    let placing = async {
        let requests: Vec<_> = (0..60)
            .map(|n| OrderRequest::one(product, 1, if n % 4 == 0 { 2000.0 } else { 5.0 }))
            .collect();
        try_join_all(requests.iter().map(|request| system.place(request))).await
    };
    let killing = async {
        system.kill(Service::Orchestrator)?;
        system.restart(Service::Orchestrator).await
    };
    let (orders, ()) = tokio::try_join!(placing, killing)?;
    let mut confirmed = 0;
    for order in &orders {
        let order = system.ended(order.id).await?;
        let charged = system.payment_status(order.id).await? == "charged";
        assert_eq!(charged, order.status() == "CONFIRMED");
        confirmed += i64::from(charged);
    }
    for order in &orders {
        until("the saga has ended", PATIENCE, || async {
            let status = system.saga(order.saga).await?["status"].clone();
            ensure!(status == "completed" || status == "compensated", "{status}");
            Ok(())
        })
        .await;
    }
    assert_eq!(system.stock(product).await?, (30 - confirmed, 0, confirmed));
    assert!(confirmed > 0);
    Ok(())
}
}

e2e! {
async fn every_service_killed_at_once_loses_nothing() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(100).await?;
    let orders = place_many(system, product, 40).await?;
    for service in Service::ALL {
        system.kill(service)?;
    }
    for service in Service::ALL {
        system.restart(service).await?;
    }
    for order in &orders {
        assert_eq!(system.ended(order.id).await?.status(), "CONFIRMED");
        system.saga_is(order.saga, "completed").await?;
    }
    assert_eq!(system.stock(product).await?, (60, 0, 40));
    Ok(())
}
}
