//! inventory-svc: tracks the pieces of each product that are available, reserved for orders, and sold.
//!
//! ```text
//!  inventory.commands ─▶ barrier ─▶ handler: lock ─▶ decide ─▶ write ─▶ saga.inputs
//!                                             └─ domain::StockBatch, in memory
//!  GET /stock, PUT /stock/{productId}, GET /reservations/{orderId}
//! ```
//!
//! **The last item goes to exactly one buyer.** A batch locks every row that any of its commands may need, once and in
//! key order. Two batches that want the same product therefore run one after the other and cannot deadlock. The batch's
//! decisions, made in memory and in log order, hold until it commits.

pub mod config;
pub mod domain;
pub mod handler;
pub mod http;
mod participant;
pub mod store;

use anyhow::Result;
use saga_contracts::topic;
use saga_messaging::{database::ConsumerGroup, kafka, metric, migrations, progress::Progress};
use saga_participant::inbox;
use saga_postgres::{
    clock::Clock,
    migrations::{check_all, migrate_all},
};
use saga_service::{
    Service,
    health::HealthRegistry,
    lifecycle::{DRAIN_DEADLINE, Shutdown},
    startup::{Server, Startup},
};
use std::sync::Arc;
use tokio::net::TcpListener;

pub use config::Config;

/// The inventory service, for `main`, the standalone mode and tests.
pub struct InventoryService;

impl Service for InventoryService {
    const NAME: &'static str = "inventory-svc";
    const DEFAULTS: &'static str = include_str!("../config/inventory-svc.toml");
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
            group: topic::INVENTORY_GROUP,
            topic: topic::INVENTORY_COMMANDS,
        };
        Some(group.adopt(Self::NAME, confirmed).await.map_err(Into::into))
    }

    async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<()> {
        metric::describe(metric::HELP);
        let mut startup = Startup::new(&config.http, Self::NAME, &listener, &shutdown);
        let servers = [Server::postgres(&config.postgres)];
        let connect = || async { Ok(saga_postgres::pools(&config.postgres, Self::NAME).await?) };
        let Some(pools) = startup.until(&servers, connect).await? else {
            return Ok(());
        };
        startup.end().await;
        let mut health = HealthRegistry::default();
        let checked = pools.store.clone();
        health.register("postgres", move || saga_postgres::health(checked.clone()));
        health.register("kafka", kafka::health_check(config.kafka.clone()));
        let alarm = inbox::alarm();
        health.register("inbox partitions", alarm.clone().health_check());
        health.register("clock", || async { Clock::of_process().check() });
        let api = http::router(Arc::new(http::App {
            pool: pools.store.clone(),
            reporting: pools.reporting,
        }));
        let progress = Progress::default();
        let watched = progress.clone();
        health.watch(topic::INVENTORY_COMMANDS, move || watched.look());
        let ready = health.readiness("kafka");
        let stop = shutdown.soft.clone();
        let alarm = (alarm, progress);
        let participant = participant::run(config.clone(), pools.store, alarm, ready, stop);
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
        Ok(())
    }
}
