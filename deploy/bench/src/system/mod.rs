//! The system that is measured: Postgres and Kafka, and the four services, each a process of its own.
//!
//! The services are this very program, started with the name of a service in its environment, so that what is measured is
//! what was built with it.

mod partition;
mod services;
mod settings;

pub use partition::drop_empty;
pub use services::Instance;
pub use settings::database;

use crate::{
    check::plans,
    kafka,
    measure::{KAFKA, LOAD_GENERATOR, POSTGRES, Probe, Watched},
    options::ServerOptions,
};
use anyhow::{Context, Result, bail, ensure};
use saga_audit::{Journal, Settings, Sources};
use saga_contracts::topic;
use saga_e2e::{process::Process, system::Service};
use saga_messaging::kafka::{KafkaConfig, TopicSpec, ensure_topics};
use saga_servers::{KafkaOptions, KafkaServer, PostgresOptions, PostgresServer, free_port};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

const POSTGRES_PORT: u16 = 5432;

/// Starts one after the other, and is stopped in the other order.
pub struct System {
    pub brokers: String,
    /// The superuser's, of the database `postgres`.
    superuser_url: reqwest::Url,
    pub http: reqwest::Client,
    directory: PathBuf,
    logs: PathBuf,
    postgres: Option<PostgresServer>,
    kafka: Option<KafkaServer>,
    /// What there is to remove from given servers.
    made_databases: bool,
    made_topics: bool,
    ports: BTreeMap<Instance, u16>,
    processes: BTreeMap<Instance, Process>,
}

impl System {
    /// Servers, databases and topics; no service yet.
    pub async fn start(
        options: &ServerOptions,
        directory: PathBuf,
        logs: PathBuf,
        log_plans: bool,
    ) -> Result<Self> {
        let (postgres, kafka) = tokio::try_join!(
            start_postgres(options, directory.join("postgres"), log_plans),
            start_kafka(options, directory.join("kafka")),
        )?;
        let superuser_url = match (&postgres, &options.postgres_url) {
            (Some(server), _) => server.superuser_url("postgres"),
            (None, Some(url)) => url.clone(),
            (None, None) => bail!("neither a private Postgres nor a given one"),
        };
        let brokers = match (&kafka, &options.kafka_brokers) {
            (Some(server), _) => server.brokers(),
            (None, Some(brokers)) => brokers.clone(),
            (None, None) => bail!("neither a private Kafka nor a given one"),
        };
        Ok(Self {
            brokers,
            superuser_url: superuser_url
                .parse()
                .context("--postgres-url is not a URL")?,
            http: saga_testkit::http_client(),
            directory,
            logs,
            postgres,
            kafka,
            made_databases: false,
            made_topics: false,
            ports: BTreeMap::new(),
            processes: BTreeMap::new(),
        })
    }

    /// Databases and topics.
    pub async fn provide(&mut self, partitions: i32) -> Result<()> {
        self.refuse_used_topics()?;
        let mut superuser = self.connect("postgres").await?;
        refuse_used_databases(&mut superuser).await?;
        self.made_databases = true;
        for service in Service::ALL {
            // Names are the services' own.
            let statement = format!(
                "CREATE DATABASE \"{}\" TEMPLATE template0 ENCODING 'UTF8'",
                database(service)
            );
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut superuser)
                .await
                .with_context(|| format!("making the database {}", database(service)))?;
        }
        superuser.close().await?;
        let specs: Vec<TopicSpec> = topic::ALL
            .into_iter()
            .flat_map(|topic| {
                [
                    TopicSpec::new(topic, partitions),
                    TopicSpec::dead_letters_of(topic),
                ]
            })
            .collect();
        self.made_topics = true;
        ensure_topics(&KafkaConfig::plaintext(&self.brokers), &specs).await?;
        Ok(())
    }

    /// Somebody's sagas would be taken for ours, and ours for somebody's.
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

    pub fn url_of(&self, database: &str) -> String {
        let mut url = self.superuser_url.clone();
        url.set_path(database);
        url.into()
    }

    /// Of the private Postgres.
    pub fn postgres_log(&self) -> Option<&Path> {
        self.postgres.as_ref().map(PostgresServer::log)
    }

    /// What is measured beside the load.
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

    /// What the independent checker has to say, which reads everything: for runs of seconds.
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

    /// Of its first copy.
    pub fn address(&self, service: Service) -> SocketAddr {
        self.address_of(Instance::first(service))
    }

    pub fn address_of(&self, instance: Instance) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[&instance]))
    }

    pub fn url(&self, service: Service, path: &str) -> String {
        format!("http://{}{path}", self.address(service))
    }

    /// A program of the private Postgres's own installation.
    pub fn postgres_program(&self, name: &str) -> Option<PathBuf> {
        let pid = self.postgres.as_ref()?.pid()?;
        let server = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        Some(server.parent()?.join(name))
    }

    /// How Postgres's own clients find a database; not on their command line, which everybody can read.
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

    /// A file that goes with the run.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Of the private Kafka, by the jar that it runs from.
    pub fn kafka_version(&self) -> String {
        let version = self.kafka.as_ref().and_then(|kafka| {
            let command =
                std::fs::read_to_string(format!("/proc/{}/cmdline", kafka.pid()?)).ok()?;
            let jars = command
                .split('\0')
                .find_map(|argument| argument.strip_suffix("/*"))?;
            let names = std::fs::read_dir(jars).ok()?.flatten();
            names
                .filter_map(|entry| entry.file_name().into_string().ok())
                .find_map(|name| {
                    Some(
                        name.strip_prefix("kafka_2.13-")?
                            .strip_suffix(".jar")?
                            .to_owned(),
                    )
                })
        });
        version.unwrap_or_else(|| "unknown".to_owned())
    }

    /// Services drain while the servers still answer. What was made in a given server is removed.
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
        if self.postgres.is_none() && self.made_databases {
            let mut superuser = self.connect("postgres").await?;
            for name in databases() {
                let statement = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
                sqlx::raw_sql(AssertSqlSafe(statement))
                    .execute(&mut superuser)
                    .await?;
            }
            superuser.close().await?;
        }
        if self.kafka.is_none() && self.made_topics {
            settings::remove_topics(&self.brokers).await?;
        }
        Ok(())
    }
}

/// Of a whole run.
fn databases() -> Vec<String> {
    let floor = crate::floor::DATABASE.to_owned();
    Service::ALL
        .map(database)
        .into_iter()
        .chain([floor])
        .collect()
}

/// Whatever is called as ours are is somebody's: before the first one is made, so that what is removed at the end is ours.
async fn refuse_used_databases(superuser: &mut PgConnection) -> Result<()> {
    let there: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname = ANY($1)")
            .bind(databases())
            .fetch_all(superuser)
            .await
            .context("which databases there are")?;
    ensure!(
        there.is_empty(),
        "the Postgres of --postgres-url has databases of another run: {}",
        there.join(", ")
    );
    Ok(())
}

async fn start_postgres(
    options: &ServerOptions,
    directory: PathBuf,
    log_plans: bool,
) -> Result<Option<PostgresServer>> {
    if options.postgres_url.is_some() {
        return Ok(None);
    }
    let mut extra_settings = settings::postgres(&options.postgres_set);
    if log_plans {
        let logged = plans::SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        extra_settings.extend(logged);
    }
    let server = PostgresServer::start(PostgresOptions {
        extra_settings,
        ..PostgresOptions::new(directory, free_port())
    });
    Ok(Some(server.await?))
}

async fn start_kafka(options: &ServerOptions, directory: PathBuf) -> Result<Option<KafkaServer>> {
    if options.kafka_brokers.is_some() {
        return Ok(None);
    }
    let server = KafkaServer::start(KafkaOptions {
        extra_properties: options.kafka_set.iter().cloned().collect(),
        heap_mb: settings::KAFKA_HEAP_MB,
        ..KafkaOptions::new(directory, free_port())
    });
    Ok(Some(server.await?))
}

/// A directory for the servers' data that goes when this process does, however it ends.
pub fn data_directory(given: Option<&Path>) -> Result<PathBuf> {
    let directory = match given {
        Some(given) => given.join(format!("saga-bench-{}", std::process::id())),
        None => std::env::temp_dir().join(format!("saga-bench-{}", std::process::id())),
    };
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let directory = directory.canonicalize()?;
    saga_testkit::environment::reaper::at_end(&format!("rm -rf -- '{}'", directory.display()));
    Ok(directory)
}
