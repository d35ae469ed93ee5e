//! inventory-svc: what can be sold, what orders hold, what is gone.
//!
//! ```text
//!  inventory.commands ─▶ barrier ─▶ handler: lock ─▶ decide ─▶ write ─▶ saga.inputs
//!                                             └─ domain::Shelf, in memory
//!  GET /stock, PUT /stock/{productId}, GET /reservations/{orderId}
//! ```
//!
//! **The last item goes to exactly one buyer.** A batch locks every row that any of its commands may need, once and in
//! key order, so two batches that want the same product take turns and never wait for each other in a circle. What a
//! batch then decides in memory, in log order, is true until it commits.

pub mod config;
pub mod domain;
pub mod handler;
pub mod http;
mod participant;
pub mod store;

use anyhow::Result;
use saga_messaging::{kafka, metric, migrations, participant::inbox};
use saga_service::{
    Service,
    health::HealthRegistry,
    lifecycle::{DRAIN_DEADLINE, Shutdown},
    postgres,
    startup::Startup,
};
use std::sync::Arc;
use tokio::net::TcpListener;

pub use config::Config;

/// The service, for `main`, the standalone mode and tests.
pub struct InventoryService;

impl Service for InventoryService {
    const NAME: &'static str = "inventory-svc";
    const DEFAULTS: &'static str = include_str!("../config/inventory-svc.toml");
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
        let connect = || postgres::pools(&config.postgres, Self::NAME);
        let Some(pools) = startup.until(&servers, connect).await? else {
            return Ok(());
        };
        startup.end().await;
        let mut health = HealthRegistry::default();
        let checked = pools.store.clone();
        health.register("postgres", move || postgres::health(checked.clone()));
        health.register("kafka", kafka::health_check(config.kafka.clone()));
        let alarm = inbox::alarm();
        health.register("inbox partitions", alarm.clone().health_check());
        let api = http::router(Arc::new(http::App {
            pool: pools.store.clone(),
            reporting: pools.reporting,
        }));
        let ready = health.readiness("kafka");
        let stop = shutdown.soft.clone();
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
