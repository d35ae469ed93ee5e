//! The orchestrator as a service: which parts it starts, in which order, and how it stops.

use crate::{
    config::Config,
    dead_letters::{DeadLetters, open_count::OpenLetterGauge},
    engine::{
        Engine, saga_store::DefinitionStore, settings::Participant, shared::Shared,
        timer_driver::TimerDriver, timers::offsets::OffsetReader,
    },
    http::{ApiState, OverviewCache, live::LiveEvents, start_batcher::start_batcher},
    kafka::KafkaOffsets,
    registry::{self, Catalog, Line, RegistryError},
    store::{self, PgStore},
    telemetry, topics,
    upkeep::{
        Upkeep,
        resend::InFlightResender,
        retention::{Retention, check_deadlines},
    },
};
use anyhow::Context;
use chrono::TimeDelta;
use saga_core::definition::DefinitionHash;
use saga_core::message::topic::{self, ORCHESTRATOR_GROUP};
use saga_messaging::{
    consumer::{self, ConsumerSettings},
    database::{self, ConsumerGroup, Database},
    kafka::{
        self, KafkaReader, KafkaWriter, ReaderOptions, RecordLossDetector, TopicReader,
        TopicRequirement,
    },
    migrations,
    outbox::{Relay, RelaySettings},
    progress::{Progress, Watched},
};
use saga_postgres::{
    Pools,
    clock::Clock,
    migrations::{check_all, migrate_all},
};
use saga_service::{
    Service,
    health::HealthRegistry,
    lifecycle::Shutdown,
    startup::{Server, Startup},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use thiserror::Error;
use tokio::{net::TcpListener, sync::Mutex};
use tracing::{info, warn};

/// The orchestrator as a [`Service`].
pub struct Orchestrator;

impl Service for Orchestrator {
    const NAME: &'static str = "orchestrator";
    const DEFAULTS: &'static str = include_str!("../config/orchestrator.toml");
    const HELP: &'static str = "\n\n`orchestrator validate PATH…` checks saga definitions, files or directories of them, without starting anything.";
    type Config = Config;

    async fn migrate(config: &Config) -> anyhow::Result<()> {
        let migrators = [&*store::MIGRATIONS, &migrations::migrator()];
        Ok(migrate_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn check_migrations(config: &Config) -> anyhow::Result<()> {
        let migrators = [&*store::MIGRATIONS, &migrations::migrator()];
        Ok(check_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn adopt(config: &Config, confirmed: bool) -> Option<anyhow::Result<String>> {
        let group = ConsumerGroup {
            postgres: &config.postgres,
            kafka: &config.kafka,
            group: ORCHESTRATOR_GROUP,
            topic: topic::SAGA_INPUTS,
        };
        Some(group.adopt(Self::NAME, confirmed).await.map_err(Into::into))
    }

    async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
        telemetry::describe();
        let mut startup = Startup::new(&config.http, Self::NAME, &listener, &shutdown);
        let Some(parts) = Parts::make(&config, &mut startup, &shutdown).await? else {
            return Ok(());
        };
        startup.end().await;
        parts.serve(config, listener, shutdown).await
    }
}

/// The error of a failed [`Upkeep::before_start`].
#[derive(Debug, Error)]
#[error("history partitions, the floor and sagas' home partitions could not be prepared")]
struct Unprepared(#[source] Box<dyn std::error::Error + Send + Sync>);

/// All parts of the orchestrator, built but not started.
struct Parts {
    store: PgStore,
    database: Arc<Database>,
    shared: Arc<Shared>,
    offsets: Arc<OffsetReader>,
    writer: KafkaWriter,
    upkeep: Upkeep,
    api: ApiState,
    /// The progress of the outbox.
    sending: Progress,
}

impl Parts {
    /// Builds the parts. Waits for the servers that they need; returns `None` if the service is stopped while it waits.
    async fn make(
        config: &Config,
        startup: &mut Startup<'_>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Self>> {
        let sources = read_definitions(config)?;
        let both = [
            Server::postgres(&config.postgres),
            Server::kafka(&config.kafka.brokers, kafka::is_unavailable),
        ];
        let (postgres, kafka) = both.split_at(1);
        let connect = || connect(config);
        let Some(store) = startup.until(postgres, connect).await? else {
            return Ok(None);
        };
        // Topics are checked before definitions are registered: until the topics are corrected, definitions may still
        // change.
        let check = || topics::check(config);
        if startup.until(kafka, check).await?.is_none() {
            return Ok(None);
        }
        let whose = || approve_database(config, &store);
        let Some(database) = startup.until(&both, whose).await? else {
            return Ok(None);
        };
        let load = || load_definitions(config, &sources, &store);
        let Some(shared) = startup.until(&both, load).await? else {
            return Ok(None);
        };
        let shared = Arc::new(shared);
        let mut parts = Self::assemble(config, (store, database), shared, shutdown)?;
        let upkeep = Mutex::new(&mut parts.upkeep);
        let prepare = || async {
            let prepared = upkeep.lock().await.before_start().await;
            prepared.map_err(|error| Unprepared(error).into())
        };
        let prepared = startup.until(&both, prepare).await?;
        Ok(prepared.map(|()| parts))
    }

    fn assemble(
        config: &Config,
        (store, database): (PgStore, Arc<Database>),
        shared: Arc<Shared>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let pool = store.pool().clone();
        let groups: BTreeSet<&str> = config
            .participants
            .configured
            .values()
            .map(|participant| participant.group.as_str())
            .chain([ORCHESTRATOR_GROUP])
            .collect();
        let source = KafkaOffsets::connect(&config.kafka, groups)?;
        let offsets = Arc::new(OffsetReader::new(source, Arc::clone(&shared.clock)));
        let writer = KafkaWriter::connect(&config.kafka)?;
        let (outbox, relay, relaying) = Relay::new(
            pool.clone(),
            writer.clone(),
            RelaySettings::default(),
            shutdown.soft.clone(),
        );
        shutdown.spawn("outbox relay", relaying);
        let sending = relay.progress();
        let upkeep = Upkeep {
            store: store.clone(),
            shared: Arc::clone(&shared),
            offsets: Arc::clone(&offsets),
            writer: writer.clone(),
            outbox: outbox.clone(),
            group: ORCHESTRATOR_GROUP,
            retention: Retention::new(
                store.clone(),
                Arc::clone(&shared),
                config.retention_days,
                TimeDelta::days(i64::from(config.engine.history_ahead_days)),
            ),
        };
        let dead_letters = DeadLetters::new(
            TopicReader::connect(&config.kafka)?,
            writer.clone(),
            store.clone(),
            Arc::clone(&shared),
            topics::consumed(config),
        );
        let api = ApiState {
            dead_letters,
            store: store.clone(),
            shared: Arc::clone(&shared),
            offsets: Arc::clone(&offsets),
            writer: writer.clone(),
            outbox: outbox.clone(),
            starts: start_batcher(pool, outbox, relay),
            live: LiveEvents::default(),
            overview: OverviewCache::default(),
            group: ORCHESTRATOR_GROUP,
            max_backlog: config.intake.max_backlog,
            stopping: shutdown.soft.clone(),
        };
        Ok(Self {
            store,
            database,
            shared,
            offsets,
            writer,
            upkeep,
            api,
            sending,
        })
    }

    /// Joins the consumer group of `saga.inputs`, and starts the tasks that depend on it.
    fn consume(&self, config: &Config, shutdown: &Shutdown) -> anyhow::Result<Progress> {
        let stop = &shutdown.soft;
        let engine = Engine::new(self.store.clone(), Arc::clone(&self.shared));
        let progress = Progress::default();
        let engine = Watched::new(engine, progress.clone());
        let reader = KafkaReader::subscribe(
            &config.kafka,
            ORCHESTRATOR_GROUP,
            &[topic::SAGA_INPUTS],
            ReaderOptions {
                group_instance_id: config.engine.member_id.clone(),
                database: Some(Arc::clone(&self.database)),
                progress: progress.clone(),
            },
        )?;
        let settings = ConsumerSettings {
            batch_limit: config.engine.batch_limit,
            ..ConsumerSettings::default()
        };
        let (lost, resend) = InFlightResender::new(
            self.store.clone(),
            self.writer.clone(),
            Arc::clone(&self.shared),
        );
        let engine = RecordLossDetector::new(
            engine,
            &config.kafka,
            (ORCHESTRATOR_GROUP, topic::SAGA_INPUTS),
            Arc::clone(&self.database),
            move |place, _lost| lost.report(place.partition),
        )?;
        let keeping = database::keep(
            Arc::clone(&self.database),
            self.store.pool().clone(),
            config.kafka.clone(),
            ORCHESTRATOR_GROUP.to_owned(),
            stop.clone(),
        );
        shutdown.spawn_vital("the database", async move { Ok(keeping.await?) });
        shutdown.spawn("sending again", resend.run(stop.clone()));
        let consuming = consumer::run(reader, self.writer.clone(), engine, settings, stop.clone());
        shutdown.spawn_vital("saga.inputs", async move { Ok(consuming.await?) });
        Ok(progress)
    }

    async fn serve(
        self,
        config: Config,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        let stop = &shutdown.soft;
        let progress = self.consume(&config, &shutdown)?;
        let timers = Progress::default();
        let driver = TimerDriver {
            store: self.store.clone(),
            writer: self.writer.clone(),
            offsets: self.offsets,
            shared: self.shared,
            group: ORCHESTRATOR_GROUP.to_owned(),
            progress: timers.clone(),
        };
        shutdown.spawn("timers", driver.run(stop.clone()));
        shutdown.spawn("upkeep", self.upkeep.run(stop.clone()));
        let clock = Clock::of_process().watch(self.store.pool().clone(), stop.clone());
        shutdown.spawn("clock", clock);
        let events = topic::SAGA_EVENTS.to_owned();
        let following = self
            .api
            .live
            .clone()
            .follow(config.kafka.clone(), events, stop.clone());
        shutdown.spawn("live events", following);
        let gauge = OpenLetterGauge::new(self.api.dead_letters.clone());
        shutdown.spawn("dead letters", gauge.run(stop.clone()));
        let mut health = health(&self.store, &self.writer);
        health.watch(topic::SAGA_INPUTS, move || progress.look());
        let starts = self.api.starts.progress();
        health.watch("starts", move || starts.look());
        health.watch("outbox", move || self.sending.look());
        health.watch("timers", move || timers.look());
        let address = listener
            .local_addr()
            .context("the listener has no address")?;
        let page = crate::http::page::router(self.api.clone(), &config.page);
        let api = crate::http::routes(self.api, config.access.guard(address)).merge(page);
        saga_service::http::serve(
            &config.http,
            listener,
            api,
            "Saga orchestrator",
            health,
            shutdown,
        )
        .await
    }
}

fn health(store: &PgStore, writer: &KafkaWriter) -> HealthRegistry {
    let mut health = HealthRegistry::default();
    let pool = store.pool().clone();
    health.register("postgres", move || saga_postgres::health(pool.clone()));
    health.register("history partitions", store.alarm().clone().health_check());
    health.register("clock", || async { Clock::of_process().check() });
    let writer = writer.clone();
    health.register("kafka", move || {
        let writer = writer.clone();
        async move { writer.health().await.map_err(|error| error.to_string()) }
    });
    health
}

/// Checks that the database belongs to this consumer group. Runs before anything is registered in the database, so that
/// another group's database stays unchanged.
async fn approve_database(config: &Config, store: &PgStore) -> anyhow::Result<Arc<Database>> {
    let approved = database::approve(
        store.pool(),
        &config.kafka,
        ORCHESTRATOR_GROUP,
        topic::SAGA_INPUTS,
    );
    Ok(approved.await?)
}

async fn connect(config: &Config) -> anyhow::Result<PgStore> {
    let Pools { store, reporting } =
        saga_postgres::pools(&config.postgres, Orchestrator::NAME).await?;
    Ok(PgStore::new(store, reporting))
}

/// Reads and checks the definitions. Runs before any server is contacted, so that faults in definitions are reported
/// first.
fn read_definitions(config: &Config) -> Result<Vec<registry::Source>, RegistryError> {
    let sources = registry::read(
        config.shipped_definitions,
        config.definitions_dir.as_deref(),
    )?;
    registry::check_participants(&sources, |name| config.participants.get(name).is_some())?;
    Ok(sources)
}

/// Registers the definitions, logs which versions run, and holds every registered version in memory: sagas may be
/// pinned to any of them.
async fn load_definitions(
    config: &Config,
    sources: &[registry::Source],
    store: &PgStore,
) -> anyhow::Result<Shared> {
    store::definition::register(store.pool(), sources, &config.participants).await?;
    let shared = Shared::new(config.engine_settings());
    let catalog = store.catalog().await?;
    check_foreign_participants(config, store, &catalog).await?;
    for Line {
        name,
        version,
        warn,
        text,
    } in registry::what_runs(sources, &catalog)
    {
        if warn {
            warn!(definition = name, version, "{text}");
        } else {
            info!(definition = name, version, "{text}");
        }
    }
    let current = shared.learn(catalog);
    check_deadlines(config.retention_days, current.running().map(AsRef::as_ref))?;
    Ok(shared)
}

/// Checks the topics of participants that this process has no configuration for, and that other orchestrators have
/// registered. Without their topics, commands could not be sent.
async fn check_foreign_participants(
    config: &Config,
    store: &PgStore,
    catalog: &Catalog,
) -> anyhow::Result<()> {
    let run: BTreeSet<&DefinitionHash> = catalog
        .by_name()
        .into_values()
        .filter_map(registry::that_runs)
        .map(|one| &one.hash)
        .collect();
    for one in &catalog.definitions {
        let Ok(definition) = &one.definition else {
            continue;
        };
        let foreign: BTreeMap<&str, &Participant> = definition
            .participants()
            .into_iter()
            .filter(|name| !config.participants.configured.contains_key(*name))
            .filter_map(|name| Some((name, catalog.participants.get(name)?)))
            .collect();
        let is_needed = !foreign.is_empty()
            && (run.contains(&one.hash)
                || store::definition::in_use(store.reporting(), &one.hash).await?);
        if !is_needed {
            continue;
        }
        let requirements: Vec<TopicRequirement> = foreign
            .values()
            .map(|participant| {
                TopicRequirement::new(participant.topic.clone(), topics::longest_outage(config))
            })
            .collect();
        kafka::check_topics(&config.kafka, &requirements)
            .await
            .with_context(|| {
                let names: Vec<&str> = foreign.keys().copied().collect();
                format!(
                    "definition '{}' version {} sends commands to {}, which other orchestrators have registered: \
                     configure them here, make their topics, or withdraw the version once its sagas have ended",
                    one.name,
                    one.version,
                    names.join(", ")
                )
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_messaging::{kafka::admin::TopicCheckError, log::LogError};

    #[test]
    fn an_outage_during_startup_is_recognized_in_every_error() {
        let check = |error: anyhow::Error, kafka: bool, postgres: bool| {
            assert_eq!(error.chain().any(kafka::is_unavailable), kafka, "{error:#}");
            assert_eq!(
                error.chain().any(saga_postgres::is_unavailable),
                postgres,
                "{error:#}"
            );
        };
        let broker = LogError::Unavailable("it restarts".into());
        check(Unprepared(Box::new(broker)).into(), true, false);
        let broker = LogError::Unavailable("it restarts".into());
        check(TopicCheckError::Log(broker).into(), true, false);
        let database = || Box::new(sqlx::Error::PoolTimedOut);
        check(Unprepared(database()).into(), false, true);
        check(RegistryError::Store(database()).into(), false, true);
        let topics = TopicCheckError::Problems(Vec::new());
        check(topics.into(), false, false);
    }
}
