//! The orchestrator as a service: what is started, in which order, and how it stops.

use crate::{
    config::Config,
    dead_letters::{Desk, census::Census},
    engine::{
        Engine,
        resend::Resend,
        shared::Shared,
        timers::{driver::TimerDriver, offsets::Offsets},
    },
    http::{ApiState, intake::start_batcher, live::LiveEvents, overview::OverviewCache},
    kafka::KafkaOffsets,
    registry::{self, Registry, RegistryError},
    store::{self, PgStore},
    telemetry,
    upkeep::{
        Upkeep,
        retention::{Retention, check_deadlines},
    },
};
use anyhow::Context;
use chrono::TimeDelta;
use saga_contracts::topic::{self, ORCHESTRATOR_GROUP};
use saga_core::definition::SagaDefinition;
use saga_messaging::{
    kafka::{self, KafkaReader, KafkaWriter, LossWatch, ReaderOptions, Scan, TopicRequirement},
    migrations,
    outbox::{Relay, RelaySettings},
    rule::{self, RuleSettings},
};
use saga_service::{
    Service,
    health::HealthRegistry,
    lifecycle::Shutdown,
    postgres,
    postgres::Pools,
    startup::{Server, Startup},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{net::TcpListener, sync::Mutex};
use tracing::info;

/// A letter is younger than its saga, by at most this.
const LETTER_SLACK: TimeDelta = TimeDelta::days(1);

/// See [`Service`].
pub struct Orchestrator;

impl Service for Orchestrator {
    const NAME: &'static str = "orchestrator";
    const DEFAULTS: &'static str = include_str!("../config/orchestrator.toml");
    const HELP: &'static str =
        "\n\n`orchestrator validate FILE…` checks saga definitions without starting anything.";
    type Config = Config;

    async fn migrate(config: &Config) -> anyhow::Result<()> {
        let migrators = [&store::MIGRATIONS, &migrations::migrator()];
        Ok(postgres::migrate_all(&config.postgres, Self::NAME, &migrators).await?)
    }

    async fn check_migrations(config: &Config) -> anyhow::Result<()> {
        let migrators = [&store::MIGRATIONS, &migrations::migrator()];
        Ok(postgres::check_all(&config.postgres, Self::NAME, &migrators).await?)
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

/// Why [`Upkeep::before_start`] could not be done.
#[derive(Debug, Error)]
#[error("what nothing can run without is not there")]
struct Unprepared(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Everything that runs, made but not started.
struct Parts {
    store: PgStore,
    shared: Arc<Shared>,
    offsets: Arc<Offsets>,
    writer: KafkaWriter,
    upkeep: Upkeep,
    api: ApiState,
}

impl Parts {
    /// Waits for the servers that it needs; `None` if it shall stop instead.
    async fn make(
        config: &Config,
        startup: &mut Startup<'_>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Self>> {
        let sources = read_definitions(config)?;
        let both = [
            postgres::server(&config.postgres),
            Server::kafka(&config.kafka.brokers, kafka::is_away),
        ];
        let (postgres, kafka) = both.split_at(1);
        let connect = || connect(config);
        let Some(store) = startup.until(postgres, connect).await? else {
            return Ok(None);
        };
        // Before definitions are registered: until topics are put right, they may still be changed.
        let check = || check_topics(config);
        if startup.until(kafka, check).await?.is_none() {
            return Ok(None);
        }
        let load = || load_definitions(config, &sources, &store);
        let Some(shared) = startup.until(postgres, load).await? else {
            return Ok(None);
        };
        let shared = Arc::new(shared);
        let mut parts = Self::assemble(config, store, shared, shutdown)?;
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
        store: PgStore,
        shared: Arc<Shared>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let pool = store.pool().clone();
        let groups: BTreeSet<&str> = config
            .participants
            .0
            .values()
            .map(|participant| participant.group.as_str())
            .chain([ORCHESTRATOR_GROUP])
            .collect();
        let source = KafkaOffsets::connect(&config.kafka, groups)?;
        let offsets = Arc::new(Offsets::new(source, Arc::clone(&shared.clock)));
        let writer = KafkaWriter::connect(&config.kafka)?;
        let (outbox, relay, relaying) = Relay::new(
            pool.clone(),
            writer.clone(),
            RelaySettings::default(),
            shutdown.soft.clone(),
        );
        shutdown.spawn("outbox relay", relaying);
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
        let dead_letters = Desk::new(
            Scan::connect(&config.kafka)?,
            writer.clone(),
            store.clone(),
            Arc::clone(&shared),
            consumed_topics(config),
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
            shared,
            offsets,
            writer,
            upkeep,
            api,
        })
    }

    async fn serve(
        self,
        config: Config,
        listener: TcpListener,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        let stop = &shutdown.soft;
        let engine = Engine::new(self.store.clone(), Arc::clone(&self.shared));
        let reader = KafkaReader::subscribe(
            &config.kafka,
            ORCHESTRATOR_GROUP,
            &[topic::SAGA_INPUTS],
            ReaderOptions {
                group_instance_id: config.engine.member_id.clone(),
            },
        )?;
        let settings = RuleSettings {
            batch_limit: config.engine.batch_limit,
            ..RuleSettings::default()
        };
        let (lost, resend) = Resend::new(
            self.store.clone(),
            self.writer.clone(),
            Arc::clone(&self.shared),
        );
        let engine = LossWatch::new(
            engine,
            &config.kafka,
            ORCHESTRATOR_GROUP,
            topic::SAGA_INPUTS,
            move |place, _lost| lost.tell(place.partition),
        )?;
        shutdown.spawn("sending again", resend.run(stop.clone()));
        let consuming = rule::run(reader, self.writer.clone(), engine, settings, stop.clone());
        shutdown.spawn_vital("saga.inputs", async move { Ok(consuming.await?) });
        let driver = TimerDriver {
            store: self.store.clone(),
            writer: self.writer.clone(),
            offsets: self.offsets,
            shared: self.shared,
            group: ORCHESTRATOR_GROUP.to_owned(),
        };
        shutdown.spawn("timers", driver.run(stop.clone()));
        shutdown.spawn("upkeep", self.upkeep.run(stop.clone()));
        let events = topic::SAGA_EVENTS.to_owned();
        let following = self
            .api
            .live
            .clone()
            .follow(config.kafka.clone(), events, stop.clone());
        shutdown.spawn("live events", following);
        let census = Census::new(self.api.dead_letters.clone());
        shutdown.spawn("dead letters", census.run(stop.clone()));
        let health = health(&self.store, &self.writer);
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
    health.register("postgres", move || postgres::health(pool.clone()));
    health.register("history partitions", store.alarm().clone().health_check());
    let writer = writer.clone();
    health.register("kafka", move || {
        let writer = writer.clone();
        async move { writer.health().await.map_err(|error| error.to_string()) }
    });
    health
}

/// Topics that somebody consumes, and that may have dead letters.
fn consumed_topics(config: &Config) -> BTreeSet<&str> {
    let participants = config.participants.0.values().map(|one| one.topic.as_str());
    participants.chain([topic::SAGA_INPUTS]).collect()
}

/// Dead letters too: without their topic a bad message would stop the service.
async fn check_topics(config: &Config) -> anyhow::Result<()> {
    kafka::check_topics(&config.kafka, &requirements(config))
        .await
        .context("checking the topics (see retention_days and engine.topic_retention_hours)")
}

/// Participants look at their dead letters themselves; here it only matters that none is kept for longer than its saga
/// is remembered, since it could not be replayed any more.
fn requirements(config: &Config) -> Vec<TopicRequirement> {
    let longest_outage =
        Duration::from_secs(u64::from(config.engine.topic_retention_hours) * 3_600);
    let participants = config.participants.0.values().map(|one| one.topic.as_str());
    let topics: BTreeSet<&str> = participants
        .chain([topic::SAGA_INPUTS, topic::SAGA_EVENTS])
        .collect();
    let letters_at_most = config
        .retention_days
        .time()
        .map(|kept| (kept - LETTER_SLACK).to_std().unwrap_or_default());
    let required = |name: String| TopicRequirement {
        production: config.engine.production_topics,
        ..TopicRequirement::new(name, longest_outage)
    };
    topics
        .into_iter()
        .flat_map(|name| {
            let own = name == topic::SAGA_INPUTS;
            let letters = topic::dead_letters(name);
            let letters = TopicRequirement {
                retention_at_most: letters_at_most,
                ..if own {
                    required(letters)
                } else {
                    TopicRequirement::optional(letters)
                }
            };
            [required(name.to_owned()), letters]
        })
        .collect()
}

async fn connect(config: &Config) -> anyhow::Result<PgStore> {
    let Pools { store, reporting } = postgres::pools(&config.postgres, Orchestrator::NAME).await?;
    Ok(PgStore::new(store, reporting))
}

/// What is wrong with definitions in themselves is said before any server is asked.
fn read_definitions(config: &Config) -> Result<Vec<registry::Source>, RegistryError> {
    let sources = registry::read(
        config.shipped_definitions,
        config.definitions_dir.as_deref(),
    )?;
    registry::check_participants(&sources, |name| config.participants.get(name).is_some())?;
    Ok(sources)
}

/// Registers, and then holds whatever is registered: sagas may be pinned to it.
async fn load_definitions(
    config: &Config,
    sources: &[registry::Source],
    store: &PgStore,
) -> anyhow::Result<Shared> {
    store::definition::register(store.pool(), sources).await?;
    let shared = Shared::new(config.engine_settings(), Registry::default());
    for definition in store::definition::all(store.reporting()).await? {
        refuse_unreachable(config, store, &definition).await?;
        shared.hold(definition);
    }
    let latest = shared.registry.all_latest();
    check_deadlines(config.retention_days, latest.iter().map(AsRef::as_ref))?;
    for definition in latest {
        info!(
            definition = definition.name,
            version = definition.version,
            hash = definition.hash.0,
            "new sagas run this"
        );
    }
    Ok(shared)
}

/// Commands of live sagas to a participant that is no longer configured would have nowhere to go.
async fn refuse_unreachable(
    config: &Config,
    store: &PgStore,
    definition: &SagaDefinition,
) -> anyhow::Result<()> {
    let Some(participant) = config.participants.first_unknown(definition) else {
        return Ok(());
    };
    if store::definition::in_use(store.reporting(), &definition.hash).await? {
        return Err(RegistryError::PinnedParticipant {
            name: definition.name.clone(),
            version: definition.version,
            participant,
        }
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_messaging::{kafka::admin::TopicCheckError, log::LogError};
    use saga_service::config::load;

    #[test]
    fn dead_letters_are_kept_for_less_time_than_sagas_are_remembered() {
        let letters = |change: &str| -> Vec<(String, Option<Duration>, bool)> {
            let config = load::<Orchestrator>(None, Some(change)).unwrap();
            let letters = requirements(&config)
                .into_iter()
                .filter(|requirement| requirement.name.strip_suffix(".dlq").is_some());
            letters
                .map(|one| (one.name, one.retention_at_most, one.optional))
                .collect()
        };
        let ten = letters("retention_days = 11");
        let days = Some(Duration::from_hours(240));
        assert!(
            ten.contains(&("saga.inputs.dlq".to_owned(), days, false)),
            "{ten:?}"
        );
        // Somebody else's, as far as it is there.
        assert!(
            ten.contains(&("payment.commands.dlq".to_owned(), days, true)),
            "{ten:?}"
        );
        let off = letters("retention_days = 'off'");
        assert!(
            off.iter().all(|(_, at_most, _)| at_most.is_none()),
            "{off:?}"
        );
    }

    #[test]
    fn a_server_that_goes_away_during_the_start_is_known_whoever_meets_it() {
        let check = |error: anyhow::Error, kafka: bool, postgres: bool| {
            assert_eq!(error.chain().any(kafka::is_away), kafka, "{error:#}");
            assert_eq!(error.chain().any(postgres::is_away), postgres, "{error:#}");
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
