//! Builds inventory commands and runs batches of them.

use anyhow::Result;
use inventory_svc::{handler::InventoryHandler, store};
use saga_core::{
    ids::SagaId,
    message::{Command, Direction, Outcome, Reply},
};
use saga_test_support::participant::Reaction;
use saga_test_support::{participant, store as test_store};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

pub async fn database() -> Result<PgPool> {
    test_store::database("inventory", &store::MIGRATIONS).await
}

/// Creates a database, see [`test_store::database_as_in_service`].
pub async fn database_as_in_service() -> Result<PgPool> {
    test_store::database_as_in_service("inventory", &store::MIGRATIONS).await
}

pub async fn product(pool: &PgPool, available: i64) -> Result<Uuid> {
    let product = Uuid::new_v4();
    store::restock(&mut *pool.acquire().await?, product, available, None).await?;
    Ok(product)
}

/// Returns the available, reserved and sold pieces of a product.
pub async fn stock(pool: &PgPool, product: Uuid) -> Result<(i64, i64, i64)> {
    let row = store::find_product(pool, product)
        .await?
        .expect("the product exists")
        .quantities;
    Ok((row.available, row.reserved, row.sold))
}

/// Returns a command of a new saga.
pub fn command(command_type: &str, payload: Value) -> Command {
    of_saga(Uuid::new_v4(), command_type, payload)
}

/// Returns a command of this saga.
pub fn of_saga(saga: Uuid, command_type: &str, payload: Value) -> Command {
    participant::command(SagaId(saga), command_type, Direction::Forward, payload)
}

/// Returns a compensation of this saga.
pub fn undo(saga: Uuid, command_type: &str, payload: Value) -> Command {
    participant::command(SagaId(saga), command_type, Direction::Compensation, payload)
}

/// Returns a reservation by the order's own saga, as the following functions do for other commands.
pub fn reserve(order: Uuid, items: &[(Uuid, u32)]) -> Command {
    let items: Vec<Value> = items
        .iter()
        .map(|(product, quantity)| json!({"productId": product, "quantity": quantity}))
        .collect();
    of_saga(
        order,
        "inventory.reserve",
        json!({"orderId": order, "items": items}),
    )
}

pub fn release(order: Uuid) -> Command {
    of_saga(order, "inventory.release", json!({"orderId": order}))
}

pub fn complete(order: Uuid) -> Command {
    of_saga(order, "inventory.complete", json!({"orderId": order}))
}

/// Runs one batch as the library does.
pub async fn batch(pool: &PgPool, commands: &[Command]) -> Result<Vec<Reaction>> {
    participant::run_batch(InventoryHandler, pool, commands).await
}

/// Returns `ok`, or the fault's code.
pub fn code(answer: &Reaction) -> &str {
    match answer {
        Reaction::Success { .. } => "ok",
        Reaction::Failure { fault } | Reaction::Error { fault } => &fault.code,
        Reaction::CallOutside => "outside",
    }
}

pub fn codes(answers: &[Reaction]) -> Vec<&str> {
    answers.iter().map(code).collect()
}

/// Returns `ok`, or the fault's code.
pub fn code_of_reply(reply: &Reply) -> String {
    match reply.outcome {
        Outcome::Success => "ok".to_owned(),
        Outcome::Failure | Outcome::Error | Outcome::NotDone => reply.fault().code,
    }
}

/// Returns the scans of the service's tables, see [`test_store::scans`].
pub async fn scans(pool: &PgPool) -> Result<Vec<(String, i64, i64)>> {
    test_store::scans(pool, &["stock", "reservation"]).await
}
