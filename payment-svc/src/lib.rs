//! payment-svc: charges and refunds orders through a payment gateway.
//!
//! ```text
//!  payment.commands ─▶ barrier ─▶ handler: note what is asked, with an intent ── commit
//!                                                                 │
//!                          gateway ◀── calls, outside any transaction, by idempotency key
//!                             │
//!                             └─▶ settlement: the payment's row and the reply ── commit ─▶ saga.inputs
//!  GET /payments, GET /payments/{orderId}
//! ```
//!
//! **Money never moves twice.** A lost answer is fetched by calling again with the same key; only after a definite
//! failure does the next attempt use another key. The shipped gateway is simulated, but stores its keys as durably as a
//! real one.

pub mod calls;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod handler;
pub mod http;
mod participant;
pub mod store;

use anyhow::{Context, Result};
use gateway::Ledger;
use saga_contracts::topic;
use saga_messaging::{
    database::ConsumerGroup, kafka, metric, migrations, partition::PartitionAlarm,
    progress::Progress,
};
use saga_participant::inbox;
use saga_postgres::{
    Pools, PostgresConfig,
    clock::Clock,
    migrations::{check_all, migrate_all},
};
use saga_service::{
    Service,
    health::HealthRegistry,
    lifecycle::{DRAIN_DEADLINE, Shutdown},
    startup::{Server, Startup},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio::net::TcpListener;

pub use config::Config;

/// The payment service, for `main`, the standalone mode and tests.
pub struct PaymentService;

impl Service for PaymentService {
    const NAME: &'static str = "payment-svc";
    const DEFAULTS: &'static str = include_str!("../config/payment-svc.toml");
    type Config = Config;

    async fn migrate(config: &Config) -> Result<()> {
        let migrators = [&*store::MIGRATIONS, &migrations::migrator()];
        Ok(migrate_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn check_migrations(config: &Config) -> Result<()> {
        let migrators = [&*store::MIGRATIONS, &migrations::migrator()];
        Ok(check_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn adopt(config: &Config, confirmed: bool) -> Option<Result<String>> {
        let group = ConsumerGroup {
            postgres: &config.postgres,
            kafka: &config.kafka,
            group: topic::PAYMENT_GROUP,
            topic: topic::PAYMENT_COMMANDS,
        };
        Some(group.adopt(Self::NAME, confirmed).await.map_err(Into::into))
    }

    async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<()> {
        metric::describe(metric::HELP);
        let mut startup = Startup::new(&config.http, Self::NAME, &listener, &shutdown);
        let servers = [Server::postgres(&config.postgres)];
        let connect = || connect(&config.postgres);
        let Some((pools, ledger)) = startup.until(&servers, connect).await? else {
            return Ok(());
        };
        startup.end().await;
        let alarm = inbox::alarm();
        let mut health = health(&config, &pools.store, alarm.clone());
        let progress = Progress::default();
        let watched = progress.clone();
        health.watch(topic::PAYMENT_COMMANDS, move || watched.look());
        let api = http::router(Arc::new(http::App {
            pool: pools.store.clone(),
            reporting: pools.reporting,
        }));
        let participant = participant::run(
            config.clone(),
            ledger.clone(),
            pools.store,
            (alarm, progress),
            health.readiness("kafka"),
            shutdown.soft.clone(),
        );
        shutdown.spawn_vital("the participant", participant);
        saga_service::http::serve(
            &config.http,
            listener,
            api,
            Self::NAME,
            health,
            shutdown.clone(),
        )
        .await?;
        shutdown.drain(DRAIN_DEADLINE).await;
        ledger.drain().await;
        Ok(())
    }
}

/// Connects to Postgres. The gateway stands for another company, so it has its own connections.
async fn connect(config: &PostgresConfig) -> Result<(Pools, Ledger)> {
    let pools = saga_postgres::pools(config, PaymentService::NAME).await?;
    let gateway = saga_postgres::store_pool(config, "payment-svc simulated gateway")
        .await
        .context("connecting to Postgres")?;
    Ok((pools, Ledger::new(gateway)))
}

fn health(config: &Config, pool: &PgPool, alarm: PartitionAlarm) -> HealthRegistry {
    let mut health = HealthRegistry::default();
    let checked = pool.clone();
    health.register("postgres", move || saga_postgres::health(checked.clone()));
    health.register("kafka", kafka::health_check(config.kafka.clone()));
    health.register("inbox partitions", alarm.health_check());
    health.register("clock", || async { Clock::of_process().check() });
    health
}
