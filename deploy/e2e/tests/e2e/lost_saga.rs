//! Cancels orders whose saga the orchestrator does not know: its database was lost or restored to an earlier state, but
//! the saga's effects still exist.

use crate::{PAYMENT_FIRST, alone, e2e};
use anyhow::{Result, ensure};
use saga_audit::Check;
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE};
use saga_test_support::environment::until;
use uuid::Uuid;

/// Deletes the saga from the orchestrator's database. The saga's commands remain in the topics.
async fn lose(system: &System, saga: Uuid) -> Result<()> {
    let pool = sqlx::PgPool::connect(&system.databases[&Service::Orchestrator]).await?;
    let lost = sqlx::query("DELETE FROM saga WHERE id = $1")
        .bind(saga)
        .execute(&pool)
        .await?;
    ensure!(lost.rows_affected() == 1, "saga {saga} was not live");
    Ok(())
}

async fn payment_is(system: &System, order: Uuid, status: &str) {
    until("the payment stands", PATIENCE, || async {
        let found = system.payment_status(order).await?;
        ensure!(found == status, "it is {found}");
        Ok(())
    })
    .await;
}

async fn cancelled(system: &System, order: &Order) -> Result<()> {
    let (status, body) = system.cancel(order.id).await?;
    ensure!(status == 202, "{body}");
    Ok(())
}

e2e! {
async fn cancelling_an_order_that_a_lost_saga_has_charged_lets_it_be_confirmed() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(10).await?;
    system.stop(Service::Payment)?;
    let order = system.place(&OrderRequest::one(product, 2, 5.0)).await?;
    until("stock is reserved", PATIENCE, || async {
        ensure!(system.stock(product).await? == (8, 2, 0));
        Ok(())
    })
    .await;
    // Waits until the charge is in the log.
    until("it waits for payment", PATIENCE, || async {
        let saga = system.saga(order.saga).await?;
        ensure!(saga["waitingOn"]["participant"] == "payment", "{saga:#}");
        Ok(())
    })
    .await;
    system.stop(Service::Orchestrator)?;
    system.restart(Service::Payment).await?;
    payment_is(system, order.id, "charged").await;
    lose(system, order.saga).await?;
    system.restart(Service::Orchestrator).await?;
    let found = system.audited(&[order.id]).await?;
    assert!(found.iter().any(|one| one.check == Check::OrderWithoutSaga), "{found:#?}");

    cancelled(system, &order).await?;
    let order = system.ended(order.id).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    system.saga_is(order.saga, "completed").await?;
    assert_eq!(system.stock(product).await?, (8, 0, 2));
    assert_eq!(system.payment_status(order.id).await?, "charged");
    let story = system.get(Service::Order, &format!("/orders/{}/events", order.id)).await?;
    assert!(story.to_string().contains("past_pivot"), "{story:#}");
    assert_eq!(system.audited(&[order.id]).await?, []);
    Ok(())
}
}

e2e! {
async fn cancelling_an_order_that_a_lost_saga_has_charged_before_its_pivot_refunds_it() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(1).await?;
    system.stop(Service::Inventory)?;
    let order = system.place(&OrderRequest::one(product, 2, 5.0).definition(PAYMENT_FIRST)).await?;
    payment_is(system, order.id, "charged").await;
    until("it waits for stock", PATIENCE, || async {
        let saga = system.saga(order.saga).await?;
        ensure!(saga["waitingOn"]["participant"] == "inventory", "{saga:#}");
        Ok(())
    })
    .await;
    system.stop(Service::Orchestrator)?;
    lose(system, order.saga).await?;
    system.restart(Service::Orchestrator).await?;
    cancelled(system, &order).await?;
    // The lost saga's command is queued before the command that resolves its outcome. It fails, because the product is
    // out of stock.
    system.restart(Service::Inventory).await?;
    let order = system.ended(order.id).await?;
    assert_eq!(order.status(), "CANCELLED", "{}", order.body);
    system.saga_is(order.saga, "compensated").await?;
    assert_eq!(system.payment_status(order.id).await?, "refunded");
    assert_eq!(system.stock(product).await?, (1, 0, 0));
    assert_eq!(system.audited(&[order.id]).await?, []);
    Ok(())
}
}

e2e! {
async fn cancelling_an_order_that_a_lost_saga_has_not_charged_puts_everything_back() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(10).await?;
    system.stop(Service::Inventory)?;
    let order = system.place(&OrderRequest::one(product, 2, 5.0)).await?;
    system.saga_is(order.saga, "running").await?;
    system.stop(Service::Orchestrator)?;
    lose(system, order.saga).await?;
    system.restart(Service::Orchestrator).await?;
    cancelled(system, &order).await?;
    // The lost saga's reservation is made now, and then undone.
    system.restart(Service::Inventory).await?;
    let order = system.ended(order.id).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "cancelled"));
    assert_eq!(order.body["reason"]["message"], "changed my mind");
    system.saga_is(order.saga, "compensated").await?;
    assert_eq!(system.stock(product).await?, (10, 0, 0));
    assert_eq!(system.payment_status(order.id).await?, "none");
    assert_eq!(system.audited(&[order.id]).await?, []);
    Ok(())
}
}
