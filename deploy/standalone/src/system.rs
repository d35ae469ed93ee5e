//! Starts everything in order, and stops it in reverse order.

use crate::{
    banner,
    options::{Name, Options},
    provision::{self, DATABASES},
    services::{self, Running},
};
use anyhow::{Context, Result, anyhow, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use saga_messaging::kafka::{self, KafkaConfig};
use saga_servers::{
    DirectoryLock, KafkaOptions, KafkaServer, PostgresOptions, PostgresServer, ServerError,
};
use saga_service::{
    cli,
    lifecycle::Shutdown,
    telemetry::{self, LogConfig},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, runtime};

/// The time within which the services must be ready. No service waits for its consumer group: after a crash the group
/// first has to expire the dead members, and orders are accepted meanwhile.
const READY_LIMIT: Duration = Duration::from_mins(1);
const READY_POLL: Duration = Duration::from_millis(20);
/// How long to retry while a process that is ending may still hold a port, and how often.
const PORT_GRACE: Duration = Duration::from_secs(3);
const PORT_POLL: Duration = Duration::from_millis(100);
/// The interval at which the servers are checked for having exited.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// How long a tool such as `initdb` may still run after everything has been stopped.
const ABANDON_LIMIT: Duration = Duration::from_secs(5);
/// The number of lines shown of the log of a server that has exited.
const TAIL_LINES: usize = 15;

/// Runs the system on its own runtime.
pub fn main(options: &Options) -> Result<()> {
    telemetry::name_process("saga");
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(run(options));
    runtime.shutdown_timeout(ABANDON_LIMIT);
    result
}

/// Runs the system until a signal arrives or a part fails.
async fn run(options: &Options) -> Result<()> {
    // Signals are handled before anything is started, so that Ctrl-C stops the system cleanly at any moment.
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    telemetry::init(&LogConfig {
        format: options.log_format.into(),
        filter: options.log_filter.clone(),
    })?;
    saga_servers::install_crypto_provider();
    let mut system = System::default();
    let outcome = tokio::select! {
        outcome = system.live(options, &shutdown) => outcome,
        () = shutdown.soft.cancelled() => {
            // A tool such as `initdb` may still run and be waited for.
            if system.is_empty() {
                banner::say("stopping");
            }
            Ok(())
        }
    };
    if let Err(error) = &outcome {
        tracing::debug!(error = format!("{error:#}"), "a part failed");
    }
    shutdown.soft.cancel();
    tokio::select! {
        () = system.stop() => {}
        () = shutdown.hard.cancelled() => system.kill().await,
    }
    outcome
}

/// The parts that have been started so far.
#[derive(Default)]
struct System {
    lock: Option<DirectoryLock>,
    postgres: Option<PostgresServer>,
    kafka: Option<KafkaServer>,
    services: Vec<Running>,
}

impl System {
    async fn live(&mut self, options: &Options, shutdown: &Shutdown) -> Result<()> {
        let began = Instant::now();
        self.start(options, shutdown).await?;
        banner::ready(options, began.elapsed());
        self.failure().await
    }

    async fn start(&mut self, options: &Options, shutdown: &Shutdown) -> Result<()> {
        let lock = DirectoryLock::acquire(&options.data_dir).map_err(explain_lock)?;
        self.lock = Some(lock);
        let data_dir = options
            .data_dir
            .canonicalize()
            .context("the data directory")?;
        let mut listeners = listen(options).await?;
        banner::say(&format!("data in {}", data_dir.display()));
        let postgres_dir = data_dir.join("postgres");
        let kafka_dir = data_dir.join("kafka");
        // The configuration is checked before anything slow is started, so that its errors are reported at once.
        let files = configure(options, &data_dir, &postgres_dir)?;
        let own_topics = match files.get(Name::Orchestrator.service()) {
            Some(file) => services::participant_topics(file)?,
            None => Vec::new(),
        };
        let superuser_url = {
            let Self {
                postgres, kafka, ..
            } = self;
            let started = tokio::try_join!(
                start_postgres(options, postgres_dir.clone(), postgres),
                start_kafka(options, kafka_dir, kafka),
            );
            started?.0
        };
        let kafka = KafkaConfig::plaintext(options.brokers());
        tokio::try_join!(
            provision::databases(options, &superuser_url, &postgres_dir),
            provision::topics(&kafka, own_topics),
        )?;
        for name in Name::ALL {
            if let (Some(listener), Some(file)) =
                (listeners.remove(name.service()), files.get(name.service()))
            {
                self.services
                    .push(services::start(name, file, listener, shutdown.child())?);
            }
        }
        let settled = async {
            ready(options).await?;
            provision::demo_stock(options).await
        };
        tokio::select! {
            result = settled => result,
            error = first_to_end(&mut self.services) => Err(error),
        }
    }

    /// Returns an error when a part has ended unexpectedly.
    async fn failure(&mut self) -> Result<()> {
        let Self {
            postgres,
            kafka,
            services,
            ..
        } = self;
        let servers = async {
            loop {
                tokio::time::sleep(WATCH_INTERVAL).await;
                if let Some(status) = postgres.as_ref().and_then(PostgresServer::ended) {
                    let log = postgres.as_ref().map(PostgresServer::log);
                    return server_ended("Postgres", &status.to_string(), log);
                }
                if let Some(status) = kafka.as_ref().and_then(KafkaServer::ended) {
                    return server_ended(
                        "Kafka",
                        &status.to_string(),
                        kafka.as_ref().map(KafkaServer::log),
                    );
                }
            }
        };
        tokio::select! {
            error = first_to_end(services) => Err(error),
            error = servers => Err(error),
        }
    }

    fn is_empty(&self) -> bool {
        self.postgres.is_none() && self.kafka.is_none() && self.services.is_empty()
    }

    /// Stops the services first, so that they drain while the servers still answer.
    async fn stop(&mut self) {
        if self.is_empty() {
            return;
        }
        banner::say("stopping; Ctrl-C again stops at once");
        while let Some(mut service) = self.services.pop() {
            if let Err(error) = service.ended().await {
                tracing::debug!(error = format!("{error:#}"), "a service failed");
            }
        }
        tokio::join!(
            async {
                if let Some(kafka) = &self.kafka {
                    kafka.stop().await;
                }
            },
            async {
                if let Some(postgres) = &self.postgres {
                    postgres.stop().await;
                }
            },
        );
        banner::say("stopped");
    }

    /// Kills both servers. They recover at the next start.
    async fn kill(&mut self) {
        if let Some(kafka) = &self.kafka {
            kafka.kill().await;
        }
        if let Some(postgres) = &self.postgres {
            postgres.kill().await;
        }
        banner::say("stopped at once");
    }
}

/// Returns an error when the first service ends. Never returns if there are no services.
async fn first_to_end(services: &mut [Running]) -> anyhow::Error {
    let mut running: FuturesUnordered<_> = services
        .iter_mut()
        .map(|service| async {
            let name = service.name.service();
            service
                .ended()
                .await
                .err()
                .unwrap_or_else(|| anyhow!("{name} ended without being stopped"))
        })
        .collect();
    match running.next().await {
        Some(error) => error,
        None => std::future::pending().await,
    }
}

fn server_ended(server: &str, status: &str, log: Option<&Path>) -> anyhow::Error {
    let tail = log
        .and_then(|log| fs::read_to_string(log).ok())
        .unwrap_or_default();
    let lines: Vec<&str> = tail.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(TAIL_LINES)..)
        .unwrap_or_default();
    let log = log.map(|log| log.display().to_string()).unwrap_or_default();
    anyhow!(
        "{server} has ended ({status}); the end of {log}:\n{}",
        last.join("\n")
    )
}

fn explain_lock(error: ServerError) -> anyhow::Error {
    let in_use = matches!(error, ServerError::InUse { .. });
    let error = anyhow::Error::new(error);
    if in_use {
        error.context("another `saga` runs on this data directory: stop it, or choose another with --data-dir")
    } else {
        error
    }
}

/// Binds the services' ports before anything slow is started. The servers' ports are not bound here: processes that a
/// killed run has left behind may still hold them, and are ended first.
async fn listen(options: &Options) -> Result<BTreeMap<&'static str, TcpListener>> {
    let mut listeners = BTreeMap::new();
    for name in Name::ALL.into_iter().filter(|name| options.runs(*name)) {
        let (flag, variable) = name.port_flag();
        let listener = cli::bind(options.address(name), flag, variable).await;
        listeners.insert(
            name.service(),
            listener.with_context(|| name.service().to_owned())?,
        );
    }
    Ok(listeners)
}

/// Writes and checks the configuration file of each service. Returns the files by service.
fn configure(
    options: &Options,
    data_dir: &Path,
    postgres_dir: &Path,
) -> Result<BTreeMap<&'static str, PathBuf>> {
    fs::create_dir_all(postgres_dir).context("the data directory")?;
    let files = Name::ALL
        .into_iter()
        .zip(&DATABASES)
        .map(|(name, database)| {
            let url = provision::service_url(options, postgres_dir, database)?;
            let file = services::write_config(options, name, data_dir, &url)?;
            services::check(name, &file)?;
            Ok((name.service(), file))
        });
    files.collect()
}

/// Starts the private Postgres unless the options name another one. Returns the superuser's URL.
async fn start_postgres(
    options: &Options,
    directory: PathBuf,
    place: &mut Option<PostgresServer>,
) -> Result<String> {
    if let Some(url) = &options.postgres_url {
        return Ok(url.clone());
    }
    let server = once_port_is_free("--postgres-port or SAGA_POSTGRES_PORT", || {
        PostgresServer::start(PostgresOptions::new(&directory, options.postgres_port))
    })
    .await?;
    banner::say(&format!("Postgres is up on 127.0.0.1:{}", server.port()));
    let superuser_url = server.superuser_url("postgres");
    *place = Some(server);
    Ok(superuser_url)
}

async fn start_kafka(
    options: &Options,
    directory: PathBuf,
    place: &mut Option<KafkaServer>,
) -> Result<()> {
    if let Some(brokers) = &options.kafka_brokers {
        let kafka = KafkaConfig::plaintext(brokers);
        return kafka::health(&kafka).await.with_context(|| {
            format!("no broker answers at {brokers}, which --kafka-brokers names")
        });
    }
    let server = once_port_is_free("--kafka-port or SAGA_KAFKA_PORT", || {
        KafkaServer::start(KafkaOptions::new(&directory, options.kafka_port))
    })
    .await?;
    banner::say(&format!("Kafka is up on {}", server.brokers()));
    *place = Some(server);
    Ok(())
}

/// Starts a server, and retries while its port is taken: the port of a killed server becomes free only when the kernel
/// has cleaned up the process. Fails if the port is still taken after `PORT_GRACE`.
async fn once_port_is_free<T, F>(flag: &str, start: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, ServerError>>,
{
    let began = Instant::now();
    loop {
        match start().await {
            Err(ServerError::PortTaken { .. }) if began.elapsed() < PORT_GRACE => {
                tokio::time::sleep(PORT_POLL).await;
            }
            Err(error @ ServerError::PortTaken { .. }) => {
                return Err(
                    anyhow::Error::new(error).context(format!("choose another with {flag}"))
                );
            }
            Err(error) => return Err(error.into()),
            Ok(server) => return Ok(server),
        }
    }
}

/// Waits until every service that runs in this process reports that it is ready.
async fn ready(options: &Options) -> Result<()> {
    let http = reqwest::Client::new();
    let began = Instant::now();
    for name in Name::ALL.into_iter().filter(|name| options.runs(*name)) {
        let url = format!("{}/health/ready", options.url(name));
        loop {
            let answer = http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            if began.elapsed() > READY_LIMIT {
                bail!(
                    "{} is not ready after {} s",
                    name.service(),
                    READY_LIMIT.as_secs()
                );
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
    Ok(())
}
