//! Builds payment commands and runs batches and calls of them.

use anyhow::Result;
use payment_svc::{
    calls::GatewayCalls,
    gateway::{GatewayConfig, Ledger, SimulatedGateway},
    handler::PaymentHandler,
    store,
};
use saga_core::{
    ids::SagaId,
    message::{Command, Direction},
};
use saga_participant::{
    external::{CallLimits, CallOutcome},
    internal::{Calls, RawCalls, RawSettlement},
};
use saga_test_support::{
    participant::{self, Reaction},
    store as test_store,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

pub async fn database() -> Result<PgPool> {
    test_store::database("payment", &store::MIGRATIONS).await
}

/// Creates a database, see [`test_store::database_as_in_service`].
pub async fn database_as_in_service() -> Result<PgPool> {
    test_store::database_as_in_service("payment", &store::MIGRATIONS).await
}

pub fn gateway(pool: &PgPool, rules: &Value) -> Result<SimulatedGateway> {
    let config: GatewayConfig =
        serde_json::from_value(json!({"limit": "1000.00", "rules": rules}))?;
    config.check()?;
    Ok(SimulatedGateway::new(config, Ledger::new(pool.clone())))
}

pub fn calls(pool: &PgPool, rules: &Value) -> Result<Calls<GatewayCalls>> {
    let limits = CallLimits {
        concurrency: 4,
        per_second: None,
        timeout: Duration::from_secs(5),
        lease: Duration::from_secs(10),
        retry_delay: Duration::from_millis(10),
        key_lifetime: Duration::from_hours(1),
    };
    let gateway = Arc::new(gateway(pool, rules)?);
    Ok(Calls::new(GatewayCalls::new(gateway, pool.clone(), limits)))
}

fn command(command_type: &str, direction: Direction, payload: Value) -> Command {
    participant::command(SagaId(Uuid::from_u128(7)), command_type, direction, payload)
}

pub fn charge(order: Uuid, amount_minor: i64) -> Command {
    let payload = json!({
        "orderId": order,
        "customerId": Uuid::from_u128(2),
        "items": [{"productId": Uuid::from_u128(3), "quantity": 1, "unitPriceMinor": amount_minor}],
        "amountMinor": amount_minor,
        "currency": "EUR",
    });
    command("payment.charge", Direction::Forward, payload)
}

pub fn refund(order: Uuid) -> Command {
    command(
        "payment.refund",
        Direction::Compensation,
        json!({"orderId": order}),
    )
}

/// Runs one batch as the library does.
pub async fn batch(pool: &PgPool, commands: &[Command]) -> Result<Vec<Reaction>> {
    participant::run_batch(PaymentHandler, pool, commands).await
}

/// Makes the call of one command, and settles it if its outcome is definite.
pub async fn call(
    pool: &PgPool,
    calls: &Calls<GatewayCalls>,
    key: &str,
    command: &Command,
) -> Result<CallOutcome> {
    let outcome = calls.call(key, command).await;
    if !matches!(outcome, CallOutcome::Indeterminate { .. }) {
        let settled = RawSettlement {
            command: command.clone(),
            key: key.to_owned(),
            outcome: outcome.clone(),
        };
        let mut tx = pool.begin().await?;
        calls.settle(&mut tx, &[settled]).await?;
        tx.commit().await?;
    }
    Ok(outcome)
}

pub async fn status(pool: &PgPool, order: Uuid) -> Result<String> {
    let payment = store::find(pool, order).await?;
    Ok(payment.map_or_else(
        || "none".to_owned(),
        |payment| payment.status.as_str().to_owned(),
    ))
}

/// Returns the sums that the gateway has approved: charges, refunds.
pub async fn approved(pool: &PgPool) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "SELECT COALESCE(SUM(amount_minor) FILTER (WHERE operation = 'charge'), 0)::bigint, \
         COALESCE(SUM(amount_minor) FILTER (WHERE operation = 'refund'), 0)::bigint \
         FROM gateway_ledger WHERE decision = 'approved'",
    )
    .fetch_one(pool)
    .await?)
}

/// Returns the scans of the service's tables, see [`test_store::scans`].
pub async fn scans(pool: &PgPool) -> Result<Vec<(String, i64, i64)>> {
    test_store::scans(pool, &["payment", "gateway_ledger"]).await
}
