//! The four services: writes their configuration for this system, and starts them in this process.
//!
//! Each service has its own thread and runtime. The thread names show which service a log line belongs to, whichever
//! library wrote it. A service that blocks does not delay the other services.

use crate::options::{Name, Options};
use anyhow::{Context, Result, anyhow};
use inventory_svc::InventoryService;
use orchestrator::{Orchestrator, registry};
use order_svc::OrderService;
use payment_svc::PaymentService;
use saga_service::{
    Service, cli, config,
    lifecycle::Shutdown,
    telemetry::{self, LogFormat},
};
use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::{net::TcpListener, runtime, sync::oneshot};

/// The number of threads of a service's runtime: four services, a broker and a database share this machine's cores.
const WORKER_THREADS: usize = 2;
/// How long tasks that a service has left behind may block after the service has ended.
const ABANDON_LIMIT: Duration = Duration::from_secs(1);

/// Writes `config/<service>.toml`, which this process reads, and also the service itself if it is started with
/// `--data-dir`. The file contains addresses and credentials; all other settings are the service's own defaults.
pub fn write_config(
    options: &Options,
    name: Name,
    data_dir: &Path,
    postgres_url: &str,
) -> Result<PathBuf> {
    let path = cli::data_dir_config(data_dir, name.service());
    let text = format!(
        "# Written at every start of `saga`: changes here are lost.\n{}",
        toml::to_string(&settings(options, name, postgres_url)?)?
    );
    let directory = path.parent().unwrap_or(data_dir);
    fs::create_dir_all(directory)
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o700)))
        .and_then(|()| {
            // The complete file is renamed, so that a service that joins meanwhile never reads half of it.
            let new = path.with_extension("new");
            fs::remove_file(&new).ok();
            let mut file = fs::File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&new, &path)
        })
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn settings(options: &Options, name: Name, postgres_url: &str) -> Result<toml::Table> {
    let mut all = toml::Table::new();
    let mut set = |section: &str, key: &str, value: toml::Value| {
        let table = all
            .entry(section)
            .or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.to_owned(), value);
        }
    };
    set("http", "listen", options.address(name).to_string().into());
    set("postgres", "url", postgres_url.into());
    set("kafka", "brokers", options.brokers().into());
    // For a service that joins as its own process. The services in this process use the log of the process.
    set(
        "log",
        "format",
        toml::Value::try_from(LogFormat::from(options.log_format))?,
    );
    let page = options.url(Name::Orchestrator);
    match name {
        Name::OrderSvc => {
            if let Some(definition) = &options.definition {
                set("orders", "definition", definition.as_str().into());
            }
        }
        Name::Orchestrator => {
            set("page", "order_url", options.url(Name::OrderSvc).into());
            set(
                "page",
                "inventory_url",
                options.url(Name::InventorySvc).into(),
            );
            if let Some(token) = &options.access_token {
                set("access", "token", token.as_str().into());
            }
        }
        Name::InventorySvc | Name::PaymentSvc => {}
    }
    if name != Name::Orchestrator {
        let local = format!("http://localhost:{}", options.orchestrator_port);
        set("http", "cors_origins", vec![page.clone(), local].into());
    }
    match name {
        Name::OrderSvc => {
            all.insert("orchestrator_url".to_owned(), page.into());
        }
        Name::Orchestrator => {
            if let Some(directory) = &options.definitions {
                let path = directory
                    .canonicalize()
                    .with_context(|| format!("--definitions {}", directory.display()))?;
                all.insert(
                    "definitions_dir".to_owned(),
                    path.to_string_lossy().into_owned().into(),
                );
            }
        }
        Name::InventorySvc | Name::PaymentSvc => {}
    }
    Ok(all)
}

fn load<S: Service>(file: &Path) -> Result<S::Config> {
    config::load::<S>(Some(file), None).with_context(|| format!("the configuration of {}", S::NAME))
}

/// Checks the configuration in `file` as far as that is possible without starting the service.
pub fn check(name: Name, file: &Path) -> Result<()> {
    match name {
        Name::OrderSvc => load::<OrderService>(file).map(drop),
        Name::Orchestrator => check_definitions(&load::<Orchestrator>(file)?),
        Name::InventorySvc => load::<InventoryService>(file).map(drop),
        Name::PaymentSvc => load::<PaymentService>(file).map(drop),
    }
}

fn check_definitions(config: &orchestrator::config::Config) -> Result<()> {
    let sources = registry::read(
        config.shipped_definitions,
        config.definitions_dir.as_deref(),
    )?;
    registry::check_participants(&sources, |name| config.participants.get(name).is_some())?;
    Ok(())
}

/// Returns the command topics of every participant in the orchestrator's configuration: the shipped ones and the user's
/// own.
pub fn participant_topics(orchestrator_config: &Path) -> Result<Vec<String>> {
    let config = load::<Orchestrator>(orchestrator_config)?;
    let participants = config.participants.configured.into_values();
    Ok(participants.map(|participant| participant.topic).collect())
}

/// A service that was started.
pub struct Running {
    pub name: Name,
    /// Becomes `None` when the result has been returned.
    ended: Option<oneshot::Receiver<Result<()>>>,
}

impl Running {
    /// Waits until the service has ended, and returns its result. Later calls return `Ok` at once.
    pub async fn ended(&mut self) -> Result<()> {
        let Some(ended) = &mut self.ended else {
            return Ok(());
        };
        let result = ended.await;
        self.ended = None;
        match result {
            Ok(result) => result.with_context(|| self.name.service().to_owned()),
            Err(_) => Err(anyhow!("{} panicked", self.name.service())),
        }
    }
}

/// Migrates a service's database and runs the service with the configuration in `file`.
pub fn start(
    name: Name,
    file: &Path,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<Running> {
    let ended = match name {
        Name::OrderSvc => {
            start_thread::<OrderService>(load::<OrderService>(file)?, listener, shutdown)
        }
        Name::Orchestrator => {
            start_thread::<Orchestrator>(load::<Orchestrator>(file)?, listener, shutdown)
        }
        Name::InventorySvc => {
            start_thread::<InventoryService>(load::<InventoryService>(file)?, listener, shutdown)
        }
        Name::PaymentSvc => {
            start_thread::<PaymentService>(load::<PaymentService>(file)?, listener, shutdown)
        }
    }?;
    Ok(Running {
        name,
        ended: Some(ended),
    })
}

fn start_thread<S: Service>(
    config: S::Config,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<oneshot::Receiver<Result<()>>> {
    let (tell, ended) = oneshot::channel();
    // The listener belongs to the reactor of this runtime, and must move to the reactor of the service's runtime.
    let listener = listener
        .into_std()
        .context("the listener cannot be handed over")?;
    thread::Builder::new()
        .name(S::NAME.to_owned())
        .spawn(move || {
            let result = live::<S>(config, listener, shutdown);
            // The receiver no longer exists if everything is being stopped at once.
            tell.send(result).ok();
        })
        .context("cannot start a thread")?;
    Ok(ended)
}

fn live<S: Service>(
    config: S::Config,
    listener: std::net::TcpListener,
    shutdown: Shutdown,
) -> Result<()> {
    telemetry::name_thread(S::NAME);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name(S::NAME)
        .on_thread_start(|| telemetry::name_thread(S::NAME))
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let result = runtime.block_on(async {
        let listener =
            TcpListener::from_std(listener).context("the listener was not handed over")?;
        tokio::select! {
            migrated = S::migrate(&config) => migrated.context("migrating its database")?,
            () = shutdown.soft.cancelled() => return Ok(()),
        }
        cli::run::<S>(config, listener, shutdown).await
    });
    runtime.shutdown_timeout(ABANDON_LIMIT);
    result
}
