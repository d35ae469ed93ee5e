//! The commands of inventory, and what a test does with a batch of them.

use anyhow::Result;
use inventory_svc::{handler::InventoryHandler, store};
use saga_core::{
    ids::SagaId,
    message::{Command, Direction, Outcome, Reply},
};
use saga_messaging::participant::Answer;
use saga_testkit::{participant, store as testkit};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

pub async fn database() -> Result<PgPool> {
    testkit::database("inventory", &store::MIGRATIONS).await
}

/// See [`testkit::database_as_in_service`].
pub async fn database_as_in_service() -> Result<PgPool> {
    testkit::database_as_in_service("inventory", &store::MIGRATIONS).await
}

pub async fn product(pool: &PgPool, available: i64) -> Result<Uuid> {
    let product = Uuid::new_v4();
    store::restock(&mut *pool.acquire().await?, product, available, None).await?;
    Ok(product)
}

/// Available, reserved, sold.
pub async fn stock(pool: &PgPool, product: Uuid) -> Result<(i64, i64, i64)> {
    let row = store::find_product(pool, product)
        .await?
        .expect("the product exists")
        .quantities;
    Ok((row.available, row.reserved, row.sold))
}

pub fn command(command_type: &str, payload: Value) -> Command {
    let saga = SagaId(Uuid::new_v4());
    participant::command(saga, command_type, Direction::Forward, payload)
}

pub fn reserve(order: Uuid, items: &[(Uuid, u32)]) -> Command {
    let items: Vec<Value> = items
        .iter()
        .map(|(product, quantity)| json!({"productId": product, "quantity": quantity}))
        .collect();
    command(
        "inventory.reserve",
        json!({"orderId": order, "items": items}),
    )
}

pub fn release(order: Uuid) -> Command {
    command("inventory.release", json!({"orderId": order}))
}

pub fn complete(order: Uuid) -> Command {
    command("inventory.complete", json!({"orderId": order}))
}

/// One batch, as the library runs it.
pub async fn batch(pool: &PgPool, commands: &[Command]) -> Result<Vec<Answer>> {
    participant::run_batch(&InventoryHandler, pool, commands).await
}

/// `ok`, or the fault's code.
pub fn code(answer: &Answer) -> &str {
    match answer {
        Answer::Success { .. } => "ok",
        Answer::Failure { fault, .. } | Answer::Error { fault } => &fault.code,
        Answer::CallOutside => "outside",
    }
}

pub fn codes(answers: &[Answer]) -> Vec<&str> {
    answers.iter().map(code).collect()
}

/// `ok`, or the fault's code.
pub fn code_of_reply(reply: &Reply) -> String {
    match reply.outcome {
        Outcome::Success => "ok".to_owned(),
        Outcome::Failure | Outcome::Error | Outcome::NotDone => reply.fault().code,
    }
}

/// See [`testkit::scans`].
pub async fn scans(pool: &PgPool) -> Result<Vec<(String, i64, i64)>> {
    testkit::scans(pool, &["stock", "reservation"]).await
}
