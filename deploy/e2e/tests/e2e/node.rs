//! The Node participant (`payment-svc/node`) as the payment participant: orders end as they do with payment-svc.

mod codecs;
pub mod participant;
mod rolling;

use crate::{PAYMENT_FIRST, alone, e2e};
use anyhow::{Result, ensure};
use futures_util::{FutureExt, future::try_join_all};
use participant::NodeParticipant;
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE};
use saga_test_support::environment::until;
use std::panic::{AssertUnwindSafe, resume_unwind};
use uuid::Uuid;

/// Enough orders that at the kill some are done, some are in flight and some have not begun.
const ORDERS: usize = 40;

e2e! {
async fn orders_come_out_right_with_a_participant_in_node() {
    let (system, _guard) = alone().await;
    let mut node = beside(system)?;
    system.stop(Service::Payment)?;
    putting_back(system, with_node(system, &mut node)).await?;
    node.stop()
}
}

/// Runs the test and then restarts payment-svc, which other tests need, even if the test fails or panics.
async fn putting_back(system: &System, test: impl Future<Output = Result<()>>) -> Result<()> {
    let outcome = AssertUnwindSafe(test).catch_unwind().await;
    system.kill(Service::Payment)?;
    system.restart(Service::Payment).await?;
    match outcome {
        Ok(outcome) => outcome,
        Err(panic) => resume_unwind(panic),
    }
}

/// Returns a Node participant on payment-svc's database. It replaces payment-svc or runs beside it.
fn beside(system: &System) -> Result<NodeParticipant> {
    NodeParticipant::new(&system.env.brokers(), &system.databases[&Service::Payment])
}

async fn with_node(system: &System, node: &mut NodeParticipant) -> Result<()> {
    let before = node.net_charged().await?;
    node.start()?;
    let mut confirmed = every_kind_of_order(system, node).await?;
    confirmed += killed_among_orders(system, node).await?;
    let kept = node.net_charged().await? - before;
    ensure!(
        kept == confirmed,
        "charged and kept: {kept}, confirmed: {confirmed}"
    );
    Ok(())
}

/// Places an order of every kind, and returns the total amount of the confirmed orders.
async fn every_kind_of_order(system: &System, node: &NodeParticipant) -> Result<i64> {
    let product = system.stock_product(10).await?;
    let sold_out = system.stock_product(1).await?;
    let mut confirmed = 0;
    for (request, status, reason, payment) in [
        (
            OrderRequest::one(product, 2, 10.50),
            "CONFIRMED",
            "",
            "charged",
        ),
        (
            OrderRequest::one(product, 2, 600.0),
            "CANCELLED",
            "payment_declined",
            "declined",
        ),
        (
            OrderRequest::one(sold_out, 2, 5.0),
            "CANCELLED",
            "out_of_stock",
            "none",
        ),
        (
            OrderRequest::one(product, 3, 1.0).definition(PAYMENT_FIRST),
            "CONFIRMED",
            "",
            "charged",
        ),
        (
            OrderRequest::one(sold_out, 2, 5.0).definition(PAYMENT_FIRST),
            "CANCELLED",
            "out_of_stock",
            "refunded",
        ),
    ] {
        let order = system.place_and_wait(&request).await?;
        ensure!(
            (order.status(), order.reason()) == (status, reason),
            "{}\n{}",
            order.body,
            node.tail()
        );
        let saga = if status == "CONFIRMED" {
            "completed"
        } else {
            "compensated"
        };
        system.saga_is(order.saga, saga).await?;
        ensure!(node.payment_status(order.id).await? == payment);
        confirmed += kept(&order);
    }
    ensure!(system.stock(product).await? == (5, 0, 5));
    ensure!(system.stock(sold_out).await? == (1, 0, 0));
    Ok(confirmed)
}

fn kept(order: &Order) -> i64 {
    match order.status() {
        "CONFIRMED" => order.body["amountMinor"].as_i64().unwrap_or_default(),
        _ => 0,
    }
}

/// Sends SIGKILL while orders are in flight. Each order must still end, and be charged once.
async fn killed_among_orders(system: &System, node: &mut NodeParticipant) -> Result<i64> {
    let product = system.stock_product(ORDERS as u64).await?;
    let before = node.charges().await?;
    let requests: Vec<OrderRequest> = (0..ORDERS)
        .map(|index| {
            let request = OrderRequest::one(product, 1, 7.0);
            if index % 2 == 0 {
                request
            } else {
                request.definition(PAYMENT_FIRST)
            }
        })
        .collect();
    let placed: Vec<Order> =
        try_join_all(requests.iter().map(|request| system.place(request))).await?;
    until("some are charged", PATIENCE, async || {
        ensure!(node.charges().await? > before, "none yet");
        anyhow::Ok(())
    })
    .await;
    node.kill()?;
    node.start()?;
    let ids: Vec<Uuid> = placed.iter().map(|order| order.id).collect();
    let ended: Vec<Order> = try_join_all(ids.iter().map(|id| system.ended(*id))).await?;
    for order in &ended {
        ensure!(
            order.status() == "CONFIRMED",
            "{}\n{}",
            order.body,
            node.tail()
        );
        system.saga_is(order.saga, "completed").await?;
    }
    ensure!(
        node.charges().await? == before + ORDERS as i64,
        "one charge an order"
    );
    ensure!(system.stock(product).await? == (0, 0, ORDERS as i64));
    Ok(ended.iter().map(kept).sum())
}
