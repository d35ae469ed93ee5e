//! order-svc: accepts orders over HTTP, starts their sagas, and ends the orders as their sagas decide.
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
//! An order's id is also its saga's id, so that one id can be searched for everywhere. The id is a UUIDv7, so orders
//! sort by time without a column for it. [`domain`] decides and does no I/O; all SQL is in [`store`].

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
use saga_contracts::topic::{ORCHESTRATOR_GROUP, ORDER_COMMANDS, ORDER_GROUP, SAGA_INPUTS};
use saga_log::SagaLog;
use saga_messaging::{
    backpressure::InputLag,
    batcher::Batcher,
    database::ConsumerGroup,
    kafka::{self, KafkaWriter},
    outbox::{Outbox, Relay, RelaySettings},
    partition::PartitionAlarm,
    progress::Progress,
};
use saga_participant::{Participant, batch::Batch, inbox};
use saga_postgres::{
    Pools, PostgresConfig,
    clock::Clock,
    migrations::{check_all, migrate, migration_pool},
};
use saga_service::{
    Service,
    health::{HealthRegistry, Readiness},
    http::serve,
    lifecycle::Shutdown,
    startup::{Server, Startup, until_ready},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The number of days for which barrier partitions are created in advance.
const PARTITIONS_AHEAD_DAYS: u32 = 7;

type OrdersParticipant = Participant<Batch<OrderParticipant>>;

/// The order service.
pub struct OrderService;

impl Service for OrderService {
    const NAME: &'static str = "order-svc";
    const DEFAULTS: &'static str = include_str!("../config/order-svc.toml");
    type Config = Config;

    async fn migrate(config: &Config) -> anyhow::Result<()> {
        let pool = migration_pool(&config.postgres, Self::NAME).await?;
        for migrator in store::migration::all() {
            migrate(&pool, &migrator).await?;
        }
        inbox::ensure_partitions(&pool, PARTITIONS_AHEAD_DAYS).await?;
        pool.close().await;
        Ok(())
    }

    async fn check_migrations(config: &Config) -> anyhow::Result<()> {
        let migrators = store::migration::all();
        Ok(check_all(&config.postgres, Self::NAME, &migrators.each_ref()).await?)
    }

    async fn adopt(config: &Config, confirmed: bool) -> Option<anyhow::Result<String>> {
        let group = ConsumerGroup {
            postgres: &config.postgres,
            kafka: &config.kafka,
            group: ORDER_GROUP,
            topic: ORDER_COMMANDS,
        };
        Some(group.adopt(Self::NAME, confirmed).await.map_err(Into::into))
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
    let servers = [Server::postgres(&config.postgres)];
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
    // The relay stops last, so that it still sends the messages of orders accepted while draining.
    let stop_relay = CancellationToken::new();
    let until_drained = stop_relay.clone().drop_guard();
    let settings = RelaySettings::default();
    let (outbox, relay, sending) =
        Relay::new(pool.clone(), writer.clone(), settings, stop_relay.clone());
    let group_is_ours = CancellationToken::new();
    let sending = send_once_ours(sending, group_is_ours.clone(), stop_relay);
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
        clock: Clock::of_process(),
        saga_log: SagaLog::new(&config.orchestrator_url)?,
        rules: config.rules()?,
    });
    let inputs = InputLag::connect(&config.kafka, ORCHESTRATOR_GROUP, SAGA_INPUTS);
    let inputs = inputs.context("kafka")?;
    let watch = inputs.run(app.pressure.clone(), shutdown.soft.clone());
    shutdown.spawn("pressure", watch);
    let mut health = health(pool, writer.clone(), alarm.clone());
    let ready = health.readiness("kafka");
    let progress = Progress::default();
    watch_work(&mut health, &app, progress.clone());
    let waiters = Arc::clone(&app.waiters);
    let participant = participant::participant(config, waiters, alarm, progress);
    let known = (ready, group_is_ours, participant);
    let participant = start_beside(config, &app, writer, known, shutdown);
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
    participant.await.context("the participant failed")?;
    drop(until_drained);
    sending.await.context("the outbox's relay failed")?;
    match shutdown.failure() {
        Some(reason) => bail!("{reason}"),
        None => Ok(()),
    }
}

/// Adds a health check for each kind of work: the orders, the outbox and the participant's commands.
fn watch_work(health: &mut HealthRegistry, app: &App, commands: Progress) {
    for (work, progress) in [
        ("orders", app.intake.progress()),
        ("outbox", app.relay.progress()),
        (ORDER_COMMANDS, commands),
    ] {
        health.watch(work, move || progress.look());
    }
}

/// Runs the relay once the consumer group is known to belong to this database. Orders in another database would start
/// sagas that nobody could end, so their messages stay in its outbox.
async fn send_once_ours(
    sending: impl Future<Output = ()>,
    group_is_ours: CancellationToken,
    stop: CancellationToken,
) {
    tokio::select! {
        () = group_is_ours.cancelled() => sending.await,
        () = stop.cancelled() => {}
    }
}

async fn prepare(config: &PostgresConfig) -> anyhow::Result<Pools> {
    let pools = saga_postgres::pools(config, OrderService::NAME).await?;
    inbox::ensure_partitions(&pools.store, PARTITIONS_AHEAD_DAYS)
        .await
        .context("the barrier's partitions could not be made")?;
    Ok(pools)
}

/// Starts the background tasks, and returns the participant's task, which `run` waits for.
fn start_beside(
    config: &Config,
    app: &Arc<App>,
    writer: KafkaWriter,
    (ready, group_is_ours, participant): (Readiness, CancellationToken, OrdersParticipant),
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
    let known = (ready, group_is_ours);
    let consuming = consume(
        participant,
        config.clone(),
        Arc::clone(app),
        writer,
        known,
        stop(),
    );
    // Without the participant, orders are accepted and never end. The service stops instead, and is restarted.
    shutdown.spawn_vital("the participant", consuming)
}

/// Waits for the broker, sets the service to ready, and consumes `order.commands` until `stop`. Fails if the topics are
/// not as required, or if the group belongs to another database.
async fn consume(
    participant: OrdersParticipant,
    config: Config,
    app: Arc<App>,
    writer: KafkaWriter,
    (ready, group_is_ours): (Readiness, CancellationToken),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let servers = [
        Server::kafka(&config.kafka.brokers, kafka::is_unavailable),
        Server::postgres(&config.postgres),
    ];
    let approve = || async {
        let approved = participant.approve(&app.pool, &config.kafka).await?;
        upkeep::count_partitions(&app.partitions, &writer).await?;
        Ok(approved)
    };
    let Some(approved) = until_ready(&servers, &ready, &stop, approve).await? else {
        return Ok(());
    };
    group_is_ours.cancel();
    participant
        .run_approved(approved, app.pool.clone(), config.kafka, stop)
        .await
        .context("order.commands cannot be consumed")
}

fn health(pool: PgPool, writer: KafkaWriter, alarm: PartitionAlarm) -> HealthRegistry {
    let mut health = HealthRegistry::default();
    health.register("inbox partitions", alarm.health_check());
    health.register("clock", || async { Clock::of_process().check() });
    health.register("postgres", move || saga_postgres::health(pool.clone()));
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
