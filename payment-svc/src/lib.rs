//! payment-svc: charges and refunds, through a payment gateway.
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
//! **Money never moves twice.** An answer that was lost is asked for by calling again with the same key; only a definite
//! failure is followed by another key. The gateway that is shipped is simulated, but keeps its keys as durably as a real
//! one.

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
use saga_messaging::{kafka, metric, migrations, participant::inbox, partition::PartitionAlarm};
use saga_service::{
    Service,
    health::HealthRegistry,
    lifecycle::{DRAIN_DEADLINE, Shutdown},
    postgres::{self, Pools, PostgresConfig},
    startup::Startup,
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio::net::TcpListener;

pub use config::Config;

/// The service, for `main`, the standalone mode and tests.
pub struct PaymentService;

impl Service for PaymentService {
    const NAME: &'static str = "payment-svc";
    const DEFAULTS: &'static str = include_str!("../config/payment-svc.toml");
    type Config = Config;

    async fn migrate(config: &Config) -> Result<()> {
        let migrators = [&store::MIGRATIONS, &migrations::migrator()];
        Ok(postgres::migrate_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn check_migrations(config: &Config) -> Result<()> {
        let migrators = [&store::MIGRATIONS, &migrations::migrator()];
        Ok(postgres::check_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<()> {
        metric::describe(metric::HELP);
        let mut startup = Startup::new(&config.http, Self::NAME, &listener, &shutdown);
        let servers = [postgres::server(&config.postgres)];
        let connect = || connect(&config.postgres);
        let Some((pools, ledger)) = startup.until(&servers, connect).await? else {
            return Ok(());
        };
        startup.end().await;
        let alarm = inbox::alarm();
        let mut health = health(&config, &pools.store, alarm.clone());
        let api = http::router(Arc::new(http::App {
            pool: pools.store.clone(),
            reporting: pools.reporting,
        }));
        let participant = participant::run(
            config.clone(),
            ledger.clone(),
            pools.store,
            alarm,
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

/// The gateway is another company: it has connections of its own.
async fn connect(config: &PostgresConfig) -> Result<(Pools, Ledger)> {
    let pools = postgres::pools(config, PaymentService::NAME).await?;
    let gateway = postgres::store_pool(config, "payment-svc simulated gateway")
        .await
        .context("connecting to Postgres")?;
    Ok((pools, Ledger::new(gateway)))
}

fn health(config: &Config, pool: &PgPool, alarm: PartitionAlarm) -> HealthRegistry {
    let mut health = HealthRegistry::default();
    let checked = pool.clone();
    health.register("postgres", move || postgres::health(checked.clone()));
    health.register("kafka", kafka::health_check(config.kafka.clone()));
    health.register("inbox partitions", alarm.health_check());
    health
}
