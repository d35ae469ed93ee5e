//! The system that is measured: Postgres and Kafka, and the four services, each a process of its own.
//!
//! Each service is this same program, started with the name of the service in its environment. The services that are
//! measured are thus the ones that were built with the bench.

mod instance;
mod partition;
mod servers;
mod services;
mod settings;

pub use instance::Instance;
pub use partition::drop_empty;
pub use servers::Servers;
pub use settings::{BASELINE_DATABASE, BASELINE_TOPICS, database};

use crate::{
    kafka,
    measure::{KAFKA, LOAD_GENERATOR, POSTGRES, Probe, Watched},
    options::Shared,
};
use anyhow::{Context, Result, ensure};
use saga_audit::{Journal, Settings, Sources};
use saga_contracts::topic;
use saga_harness::{process::Process, system::Service};
use saga_messaging::kafka::{KafkaConfig, TopicSpec, ensure_topics};
use saga_servers::{KafkaOptions, KafkaServer, PostgresOptions, PostgresServer, free_port};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

const POSTGRES_PORT: u16 = 5432;

/// The servers and the services. The services are started after the servers, and stopped before them.
pub struct System {
    pub brokers: String,
    /// The superuser's URL of the database `postgres`.
    superuser_url: reqwest::Url,
    pub http: reqwest::Client,
    directory: PathBuf,
    logs: PathBuf,
    postgres: Option<PostgresServer>,
    kafka: Option<KafkaServer>,
    /// Set before the databases and topics are created, which must then be removed from given servers.
    is_provided: bool,
    ports: BTreeMap<Instance, u16>,
    processes: BTreeMap<Instance, Process>,
}

impl System {
    /// Starts or connects to Postgres and Kafka. Creates no databases or topics, and starts no service.
    pub async fn start(
        options: &Shared,
        directory: PathBuf,
        logs: PathBuf,
        log_plans: bool,
    ) -> Result<Self> {
        let (postgres, kafka) = tokio::try_join!(
            start_postgres(options, directory.join("postgres"), log_plans),
            start_kafka(options, directory.join("kafka")),
        )?;
        let superuser_url = postgres.as_ref().map(|own| own.superuser_url("postgres"));
        let superuser_url = superuser_url.or_else(|| options.postgres_url.clone());
        let brokers = kafka.as_ref().map(KafkaServer::brokers);
        let brokers = brokers.or_else(|| options.kafka_brokers.clone());
        Ok(Self {
            brokers: brokers.context("neither a private Kafka nor a given one")?,
            superuser_url: superuser_url
                .context("neither a private Postgres nor a given one")?
                .parse()
                .context("--postgres-url is not a URL")?,
            http: saga_test_support::http_client(),
            directory,
            logs,
            postgres,
            kafka,
            is_provided: false,
            ports: BTreeMap::new(),
            processes: BTreeMap::new(),
        })
    }

    /// Creates the databases and topics.
    pub async fn provide(&mut self, partitions: i32) -> Result<()> {
        self.refuse_used_topics()?;
        let mut superuser = self.connect("postgres").await?;
        refuse_used_databases(&mut superuser).await?;
        self.is_provided = true;
        superuser.close().await?;
        self.execute(
            "postgres",
            Service::ALL.map(|service| create(&database(service))),
        )
        .await?;
        let specs: Vec<TopicSpec> = topic::ALL
            .into_iter()
            .flat_map(|topic| {
                [
                    TopicSpec::new(topic, partitions),
                    TopicSpec::dead_letters_of(topic),
                ]
            })
            .collect();
        ensure_topics(&KafkaConfig::plaintext(&self.brokers), &specs).await?;
        Ok(())
    }

    /// Fails if the topics of a given Kafka have records: sagas of another system would be taken for ours, and ours for
    /// that system's.
    fn refuse_used_topics(&self) -> Result<()> {
        if self.kafka.is_some() {
            return Ok(());
        }
        let records = kafka::ends(&kafka::consumer(&self.brokers)?)?;
        ensure!(
            records.values().all(|count| *count == 0),
            "the brokers of --kafka-brokers have topics of this system with records in them"
        );
        Ok(())
    }

    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        PgConnection::connect(&self.url_of(database))
            .await
            .with_context(|| format!("connecting to the database {database}"))
    }

    /// Executes statements, one after the other. Their names come from the services, not from outside.
    pub async fn execute(
        &self,
        database: &str,
        statements: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        let mut connection = self.connect(database).await?;
        for statement in statements {
            let failed = format!("executing {statement}");
            let executed = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection);
            executed.await.context(failed)?;
        }
        Ok(connection.close().await?)
    }

    /// Connects to the database of a service.
    pub async fn database_of(&self, service: Service) -> Result<PgConnection> {
        self.connect(&database(service)).await
    }

    /// Returns a pool of one connection to the database of a service, as the library for partitions takes it.
    pub async fn pool_of(&self, service: Service) -> Result<PgPool> {
        let pool = PgPoolOptions::new().max_connections(1);
        let connected = pool.connect(&self.url_of(&database(service))).await;
        connected.with_context(|| format!("connecting to the database {}", database(service)))
    }

    pub fn url_of(&self, database: &str) -> String {
        let mut url = self.superuser_url.clone();
        url.set_path(database);
        url.into()
    }

    /// The log of the private Postgres; `None` if Postgres was given.
    pub fn postgres_log(&self) -> Option<&Path> {
        self.postgres.as_ref().map(PostgresServer::log)
    }

    /// Returns the probe that measures the processes, Postgres and Kafka.
    pub async fn probe(&self) -> Result<Probe> {
        let watched = |name: &str, pid: u32, with_children: bool| Watched {
            name: name.to_owned(),
            pid,
            with_children,
        };
        let mut all = vec![watched(LOAD_GENERATOR, std::process::id(), false)];
        if let Some(pid) = self.postgres.as_ref().and_then(PostgresServer::pid) {
            all.push(watched(POSTGRES, pid, true));
        }
        if let Some(pid) = self.kafka.as_ref().and_then(KafkaServer::pid) {
            all.push(watched(KAFKA, pid, false));
        }
        for (instance, process) in &self.processes {
            if let Some(child) = &process.child {
                all.push(watched(&instance.name(), child.id(), false));
            }
        }
        let databases = Service::ALL.map(database).to_vec();
        let kafka_data = self
            .kafka
            .as_ref()
            .map(|_| self.directory.join("kafka/data"));
        Probe::new(&self.url_of("postgres"), all, databases, kafka_data).await
    }

    /// Returns the discrepancies that the independent checker finds. It reads everything, so it is only for runs of
    /// seconds.
    pub async fn audit(&self) -> Result<Vec<String>> {
        let sources = Sources {
            orchestrator: self.url_of(&database(Service::Orchestrator)),
            order: self.url_of(&database(Service::Order)),
            inventory: self.url_of(&database(Service::Inventory)),
            payment: self.url_of(&database(Service::Payment)),
            brokers: self.brokers.clone(),
            kafka: Vec::new(),
            orchestrator_group: Sources::DEFAULT_GROUP.to_owned(),
        };
        let settings = Settings {
            drained: true,
            ..Settings::default()
        };
        let report = saga_audit::audit(&sources, &Journal::default(), &settings).await?;
        Ok(report
            .discrepancies
            .iter()
            .map(ToString::to_string)
            .collect())
    }

    /// The address of the service's first copy.
    pub fn address(&self, service: Service) -> SocketAddr {
        self.address_of(Instance::first(service))
    }

    pub fn address_of(&self, instance: Instance) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[&instance]))
    }

    pub fn url(&self, service: Service, path: &str) -> String {
        format!("http://{}{path}", self.address(service))
    }

    /// The path of a program from the private Postgres's own installation.
    pub fn postgres_program(&self, name: &str) -> Option<PathBuf> {
        let pid = self.postgres.as_ref()?.pid()?;
        let server = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(server.parent()?.join(name))
    }

    /// Environment variables by which Postgres's own clients find a database. They are not passed on the command line,
    /// which every user of the machine can read.
    pub fn libpq_environment(&self, database: &str) -> Vec<(&'static str, String)> {
        let url = &self.superuser_url;
        vec![
            ("PGHOST", url.host_str().unwrap_or_default().to_owned()),
            ("PGPORT", url.port().unwrap_or(POSTGRES_PORT).to_string()),
            ("PGUSER", url.username().to_owned()),
            ("PGPASSWORD", url.password().unwrap_or_default().to_owned()),
            ("PGDATABASE", database.to_owned()),
        ]
    }

    /// The path of a file that is removed with the run's directory.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The version of the private Kafka, from the name of the jar that it runs from.
    pub fn kafka_version(&self) -> String {
        let version = || {
            let pid = self.kafka.as_ref()?.pid()?;
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let mut arguments = command.split('\0');
            let jars = arguments.find_map(|argument| argument.strip_suffix("/*"))?;
            let mut files = std::fs::read_dir(jars).ok()?.flatten();
            files.find_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let version = name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?;
                Some(version.to_owned())
            })
        };
        version().unwrap_or_else(|| "unknown".to_owned())
    }

    /// Stops the services first, so that they drain while the servers still answer. Removes from a given server what
    /// this run created there.
    pub async fn stop(&mut self) -> Result<()> {
        let services = self.stop_services();
        let removed = self.remove_what_we_made().await;
        if let Some(kafka) = self.kafka.take() {
            kafka.stop().await;
        }
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
        services.and(removed)
    }

    async fn remove_what_we_made(&self) -> Result<()> {
        if self.postgres.is_none() && self.is_provided {
            let drops = databases()
                .iter()
                .map(|name| drop_database(name))
                .collect::<Vec<_>>();
            self.execute("postgres", drops).await?;
        }
        if self.kafka.is_none() && self.is_provided {
            settings::remove_topics(&self.brokers).await?;
        }
        Ok(())
    }
}

/// Returns the statement that creates a database.
pub fn create(name: &str) -> String {
    format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")
}

/// Returns the statement that drops a database if it exists.
pub fn drop_database(name: &str) -> String {
    format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")
}

/// The names of all databases that a run creates.
fn databases() -> Vec<String> {
    let baseline = BASELINE_DATABASE.to_owned();
    Service::ALL
        .map(database)
        .into_iter()
        .chain([baseline])
        .collect()
}

/// Fails if a database with one of our names exists. Runs before any is created, so that cleanup drops only what this
/// run created.
async fn refuse_used_databases(superuser: &mut PgConnection) -> Result<()> {
    let there: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname = ANY($1)")
            .bind(databases())
            .fetch_all(superuser)
            .await
            .context("listing the databases")?;
    ensure!(
        there.is_empty(),
        "the Postgres of --postgres-url has databases of another run: {}",
        there.join(", ")
    );
    Ok(())
}

async fn start_postgres(
    options: &Shared,
    directory: PathBuf,
    log_plans: bool,
) -> Result<Option<PostgresServer>> {
    if options.postgres_url.is_some() {
        return Ok(None);
    }
    let mut extra_settings = settings::postgres(&options.postgres_set);
    if log_plans {
        let logged = settings::PLANS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        extra_settings.extend(logged);
    }
    let server = PostgresServer::start(PostgresOptions {
        extra_settings,
        ..PostgresOptions::new(directory, free_port())
    });
    Ok(Some(server.await?))
}

async fn start_kafka(options: &Shared, directory: PathBuf) -> Result<Option<KafkaServer>> {
    if options.kafka_brokers.is_some() {
        return Ok(None);
    }
    // A run writes more records than a disk may have room for, and consumes them at once.
    let limit = ("log.retention.bytes".to_owned(), "1073741824".to_owned());
    let server = KafkaServer::start(KafkaOptions {
        extra_properties: [limit]
            .into_iter()
            .chain(options.kafka_set.iter().cloned())
            .collect(),
        heap_mb: settings::KAFKA_HEAP_MB,
        ..KafkaOptions::new(directory, free_port())
    });
    Ok(Some(server.await?))
}

/// Creates a directory for the servers' data. It is removed when this process ends, however it ends.
pub fn data_directory(given: Option<&Path>) -> Result<PathBuf> {
    let parent = given.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let directory = parent.join(format!("saga-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let directory = directory.canonicalize()?;
    saga_test_support::environment::reaper::at_end(&format!("rm -rf -- '{}'", directory.display()));
    Ok(directory)
}
