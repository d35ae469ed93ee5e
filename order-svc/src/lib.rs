//! order-svc: takes orders in over HTTP, starts their sagas, and ends them as their sagas say.
//!
//! ```text
//!            POST /orders                        GET /orders…            order.confirm, order.cancel
//!                 │                                   │                             │
//!  [http] ── [intake]: many requests, one transaction │                      [participant]: a batch,
//!                 │                                   │                        one transaction
//!                 ▼                                   ▼                             ▼
//!  [store]  orders, order_event, idempotency, inbox (barrier), outbox ───────── Postgres
//!                 │ after the commit
//!                 ▼
//!               relay ──▶ saga.inputs, the order's home partition
//! ```
//!
//! An order's id is its saga's id: whoever has one can search for it everywhere. It is a UUIDv7, so orders sort by
//! time without a column for it. [`domain`] decides and knows no I/O; all SQL stands in [`store`].

pub mod config;
pub mod domain;
pub mod http;
pub mod intake;
mod metric;
pub mod participant;
pub mod saga_log;
pub mod store;
pub mod view;

pub use config::Config;

use anyhow::{Context, bail};
use http::App;
use intake::{
    batch::Intake,
    upkeep::{self, Partitions},
};
use participant::OrderParticipant;
use saga_contracts::topic::{ORCHESTRATOR_GROUP, SAGA_INPUTS};
use saga_log::SagaLog;
use saga_messaging::{
    batcher::Batcher,
    kafka::{KafkaConfig, KafkaWriter},
    outbox::{Outbox, Relay, RelaySettings},
    participant::{ParticipantConfig, inbox},
    partition::PartitionAlarm,
    pressure::InputsWatch,
};
use saga_service::{
    Service,
    health::{HealthRegistry, Readiness},
    http::serve,
    lifecycle::Shutdown,
    postgres::{self, Pools, PostgresConfig},
    startup::{Startup, participant::approved},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// `ce_source` of every message of this service.
pub const SOURCE: &str = "/order-svc";

/// Barrier partitions are made for so many days ahead.
const PARTITIONS_AHEAD_DAYS: u32 = 7;

/// The service.
pub struct OrderService;

impl Service for OrderService {
    const NAME: &'static str = "order-svc";
    const DEFAULTS: &'static str = include_str!("../config/order-svc.toml");
    type Config = Config;

    async fn migrate(config: &Config) -> anyhow::Result<()> {
        let pool = postgres::migration_pool(&config.postgres, Self::NAME).await?;
        for migrator in store::migration::all() {
            postgres::migrate(&pool, &migrator).await?;
        }
        inbox::ensure_partitions(&pool, PARTITIONS_AHEAD_DAYS).await?;
        pool.close().await;
        Ok(())
    }

    async fn check_migrations(config: &Config) -> anyhow::Result<()> {
        let migrators = store::migration::all();
        Ok(postgres::check_all(&config.postgres, Self::NAME, &migrators.each_ref()).await?)
    }

    async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
        let hard = shutdown.hard.clone();
        tokio::select! {
            result = run(&config, listener, &shutdown) => result,
            () = hard.cancelled() => Ok(()),
        }
    }
}

/// Runs until the shutdown, then drains in the order in which work flows: requests, batches, messages.
async fn run(config: &Config, listener: TcpListener, shutdown: &Shutdown) -> anyhow::Result<()> {
    metric::describe();
    let mut startup = Startup::new(&config.http, OrderService::NAME, &listener, shutdown);
    let servers = [postgres::server(&config.postgres)];
    let prepare = || prepare(&config.postgres);
    let Some(Pools {
        store: pool,
        reporting,
    }) = startup.until(&servers, prepare).await?
    else {
        return Ok(());
    };
    startup.end().await;
    let writer = KafkaWriter::connect(&config.kafka).context("kafka")?;
    // The relay stops last: what was accepted while draining still goes out.
    let stop_relay = CancellationToken::new();
    let until_drained = stop_relay.clone().drop_guard();
    let settings = RelaySettings::default();
    let (outbox, relay, sending) = Relay::new(pool.clone(), writer.clone(), settings, stop_relay);
    let sending = shutdown.spawn("outbox relay", sending);
    let alarm = inbox::alarm();
    let app = Arc::new(App {
        intake: start_intake(config, &pool, &outbox, &relay, &alarm),
        pool: pool.clone(),
        reporting,
        outbox,
        relay,
        partitions: Partitions::default(),
        pressure: config.pressure(),
        waiters: Arc::default(),
        saga_log: SagaLog::new(&config.orchestrator_url)?,
        rules: config.rules()?,
    });
    let inputs = InputsWatch::connect(&config.kafka, ORCHESTRATOR_GROUP, SAGA_INPUTS);
    let inputs = inputs.context("kafka")?;
    let watch = inputs.run(app.pressure.clone(), shutdown.soft.clone());
    shutdown.spawn("pressure", watch);
    let mut health = health(pool, writer.clone(), alarm.clone());
    let ready = health.readiness("kafka");
    let participant = start_beside(config, &app, writer, (ready, alarm), shutdown);
    let api = http::router(Arc::clone(&app));
    serve(
        &config.http,
        listener,
        api,
        OrderService::NAME,
        health,
        shutdown.clone(),
    )
    .await?;
    shutdown.soft.cancel();
    app.intake.drain().await;
    participant.await.context("the participant broke off")?;
    drop(until_drained);
    sending.await.context("the outbox's relay broke off")?;
    match shutdown.failure() {
        Some(reason) => bail!("{reason}"),
        None => Ok(()),
    }
}

async fn prepare(config: &PostgresConfig) -> anyhow::Result<Pools> {
    let pools = postgres::pools(config, OrderService::NAME).await?;
    inbox::ensure_partitions(&pools.store, PARTITIONS_AHEAD_DAYS)
        .await
        .context("the barrier's partitions could not be made")?;
    Ok(pools)
}

/// Starts what runs beside the requests, and returns the participant, which others must not outlive.
fn start_beside(
    config: &Config,
    app: &Arc<App>,
    writer: KafkaWriter,
    (ready, alarm): (Readiness, PartitionAlarm),
    shutdown: &Shutdown,
) -> JoinHandle<()> {
    let stop = || shutdown.soft.clone();
    let pool = || app.pool.clone();
    let count = upkeep::watch_partitions(app.partitions.clone(), writer.clone(), stop());
    shutdown.spawn("partition count", count);
    shutdown.spawn("upkeep", upkeep::tend_database(pool(), stop()));
    let (waiters, stop_waiting, wait_pool) = (Arc::clone(&app.waiters), stop(), pool());
    shutdown.spawn("waiting requests", async move {
        waiters.run(wait_pool, stop_waiting).await;
    });
    let participant = participant::settings(config, alarm);
    let kafka = config.kafka.clone();
    let consuming = consume(participant, kafka, Arc::clone(app), writer, ready, stop());
    // Without it, orders are taken and never end: better to stop, and be started again, than to pretend.
    shutdown.spawn_vital("the participant", consuming)
}

/// Waits for the broker, and is ready to take orders then; consumes what follows from them until `stop`. Topics that are
/// not as they must be end it.
async fn consume(
    participant: ParticipantConfig,
    kafka: KafkaConfig,
    app: Arc<App>,
    writer: KafkaWriter,
    ready: Readiness,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let count = || async { Ok(upkeep::count_partitions(&app.partitions, &writer).await?) };
    let approved = approved(participant, &kafka, &ready, &stop, count);
    let Some(participant) = approved.await? else {
        return Ok(());
    };
    let handler = OrderParticipant {
        waiters: Arc::clone(&app.waiters),
    };
    participant::run(participant, handler, app.pool.clone(), kafka, stop).await
}

fn health(pool: PgPool, writer: KafkaWriter, alarm: PartitionAlarm) -> HealthRegistry {
    let mut health = HealthRegistry::default();
    health.register("inbox partitions", alarm.health_check());
    health.register("postgres", move || postgres::health(pool.clone()));
    health.register("kafka", move || {
        let writer = writer.clone();
        async move { writer.health().await.map_err(|error| error.to_string()) }
    });
    health
}

fn start_intake(
    config: &Config,
    pool: &PgPool,
    outbox: &Outbox,
    relay: &Relay,
    alarm: &PartitionAlarm,
) -> Batcher<intake::batch::Job, intake::batch::Outcome, intake::batch::IntakeError> {
    let intake = Intake {
        pool: pool.clone(),
        outbox: outbox.clone(),
        relay: relay.clone(),
        partition_alarm: alarm.clone(),
    };
    Batcher::start("orders", config.batcher(), move |jobs| {
        let intake = intake.clone();
        async move { intake.take_in(jobs).await }
    })
}
