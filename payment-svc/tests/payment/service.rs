//! Tests the whole service on a real Kafka. The command topic and the group have fixed names, so there is only one
//! test.

use crate::fixture::{approved, charge, refund};
use anyhow::{Context, Result};
use payment_svc::PaymentService;
use saga_contracts::topic;
use saga_core::{
    ids::SagaId,
    message::{Command, Direction, Outcome},
};
use saga_service::clock;
use saga_test_support::{
    environment::{TestEnv, until},
    participant::Conversation,
    service::{Running, refuses_another_database},
};
use serde_json::Value;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_mins(1);
const PARTITIONS: i32 = 2;

/// The amounts for which the gateway's rules apply.
const TIMES_OUT: i64 = 1_301;
const FAILS_ONCE: i64 = 1_302;
const NEVER_ANSWERS: i64 = 1_303;
const RULES: &str = r#"
gateway.rules = [
  { amount_minor = 1301, effect = "time_out", times = 2 },
  { amount_minor = 1302, effect = "error", times = 1 },
  { amount_minor = 1303, effect = "time_out" },
]
calls.retry_delay_ms = 20
"#;

fn overrides(database: &str, brokers: &str, rules: &str) -> String {
    format!(
        "postgres.url = \"{database}\"\nkafka.brokers = \"{brokers}\"\nlog.format = \"human\"\n{rules}"
    )
}

async fn start(database: &str, brokers: &str, rules: &str) -> Result<Running> {
    Running::start::<PaymentService>(&overrides(database, brokers, rules)).await
}

async fn status(running: &Running, order: Uuid) -> Result<String> {
    let response = saga_test_support::http_client()
        .get(running.url(&format!("/payments/{order}")))
        .send()
        .await?;
    let body: Value = response.error_for_status()?.json().await?;
    Ok(body["status"].as_str().unwrap_or_default().to_owned())
}

fn charge_of(amount_minor: i64) -> (Uuid, Command) {
    let order = clock::new_id();
    (
        order,
        Command {
            saga_id: SagaId(order),
            ..charge(order, amount_minor)
        },
    )
}

fn refund_of(order: Uuid) -> Command {
    Command {
        saga_id: SagaId(order),
        ..refund(order)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_charges_once_despite_faults_of_gateway_and_process() -> Result<()> {
    let env = TestEnv::shared().await;
    let database = env.create_database("payment_service").await;
    let topics = [topic::PAYMENT_COMMANDS, topic::SAGA_INPUTS];
    env.create_topics(&topics.map(|name| (name, PARTITIONS)))
        .await;
    env.create_topics(&[(&topic::dead_letters_of(topic::PAYMENT_COMMANDS), 1)])
        .await;
    let brokers = env.brokers();
    let running = start(&database, &brokers, RULES).await?;
    let http = saga_test_support::http_client();
    until("the service is healthy", PATIENCE, async || {
        http.get(running.url("/health"))
            .send()
            .await?
            .error_for_status()
            .map(drop)
    })
    .await;
    let pool = PgPool::connect(&database).await?;
    let mut log = Conversation::open(&brokers, topic::PAYMENT_COMMANDS).await?;
    charged_and_refunded(&running, &mut log, &pool).await?;
    let empty = env.create_database("payment_stranger").await;
    let stranger = overrides(&empty, &brokers, RULES);
    refuses_another_database::<PaymentService>(&stranger, topic::PAYMENT_GROUP, &database).await?;
    misbehaving(&running, &mut log, &pool).await?;
    let running = restarted(running, &mut log, &database, &brokers, &pool).await?;
    running.stop().await
}

async fn charged_and_refunded(
    running: &Running,
    log: &mut Conversation,
    pool: &PgPool,
) -> Result<()> {
    let (order, pay) = charge_of(500);
    let paid = log.ask(&pay).await?;
    assert_eq!(
        (paid.outcome, paid.reply_type.as_str()),
        (Outcome::Success, "payment.success")
    );
    assert_eq!(
        log.ask(&Command { attempt: 2, ..pay }).await?.id(),
        paid.id()
    );
    assert_eq!(status(running, order).await?, "charged");
    let refunded = log.ask(&refund_of(order)).await?;
    assert_eq!(refunded.reply_type, "payment.refunded");
    assert_eq!(refunded.direction, Direction::Compensation);
    assert_eq!(log.ask(&refund_of(order)).await?.id(), refunded.id());
    assert_eq!(status(running, order).await?, "refunded");
    assert_eq!(approved(pool).await?, (500, 500));

    let (order, large) = charge_of(100_001);
    let declined = log.ask(&large).await?;
    assert_eq!(
        (declined.outcome, declined.fault().code.as_str()),
        (Outcome::Failure, "payment_declined")
    );
    assert_eq!(status(running, order).await?, "declined");
    // Nothing was charged, so the compensation is empty and the gateway is not called.
    assert_eq!(log.ask(&refund_of(order)).await?.outcome, Outcome::Success);
    assert_eq!(approved(pool).await?, (500, 500));
    Ok(())
}

async fn misbehaving(running: &Running, log: &mut Conversation, pool: &PgPool) -> Result<()> {
    let (order, slow) = charge_of(TIMES_OUT);
    assert_eq!(log.ask(&slow).await?.outcome, Outcome::Success);
    assert_eq!(status(running, order).await?, "charged");
    assert_eq!(approved(pool).await?, (500 + TIMES_OUT, 500));

    let (order, broken) = charge_of(FAILS_ONCE);
    let failed = log.ask(&broken).await?;
    assert_eq!(
        (failed.outcome, failed.fault().code.as_str()),
        (Outcome::Error, "gateway_error")
    );
    assert_eq!(status(running, order).await?, "charge_failed");
    let again = log
        .ask(&Command {
            attempt: 2,
            ..broken
        })
        .await?;
    assert_eq!((again.outcome, again.attempt), (Outcome::Success, 2));
    assert_eq!(approved(pool).await?, (500 + TIMES_OUT + FAILS_ONCE, 500));
    Ok(())
}

/// Stops the process while the outcome of a charge is unknown. The next process finds the outcome and charges nothing.
async fn restarted(
    running: Running,
    log: &mut Conversation,
    database: &str,
    brokers: &str,
    pool: &PgPool,
) -> Result<Running> {
    let before = approved(pool).await?;
    let (order, unknown) = charge_of(NEVER_ANSWERS);
    log.send(std::slice::from_ref(&unknown)).await?;
    until("the gateway has charged", PATIENCE, async || {
        Ok::<_, anyhow::Error>((approved(pool).await?.0 == before.0 + NEVER_ANSWERS).then_some(()))
            .and_then(|charged| charged.context("not charged yet"))
    })
    .await;
    assert_eq!(status(&running, order).await?, "charging");
    running.stop().await?;
    let running = start(database, brokers, "").await?;
    assert_eq!(log.reply_to(&unknown).await?.outcome, Outcome::Success);
    assert_eq!(status(&running, order).await?, "charged");
    assert_eq!(approved(pool).await?, (before.0 + NEVER_ANSWERS, before.1));
    Ok(running)
}
