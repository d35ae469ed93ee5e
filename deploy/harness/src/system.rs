//! The whole system under test: four services, Kafka and Postgres.

use crate::{process::Process, serve::SERVICE_VARIABLE};
use anyhow::{Context, Result};
use saga_test_support::environment::{TestEnv, until};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Mutex,
    time::Duration,
};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Order,
    Orchestrator,
    Inventory,
    Payment,
}

impl Service {
    pub const ALL: [Self; 4] = [
        Self::Order,
        Self::Orchestrator,
        Self::Inventory,
        Self::Payment,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order-svc",
            Self::Orchestrator => "orchestrator",
            Self::Inventory => "inventory-svc",
            Self::Payment => "payment-svc",
        }
    }

    /// The prefix of the service's environment variables.
    fn prefix(self) -> &'static str {
        match self {
            Self::Order => "ORDER_SVC",
            Self::Orchestrator => "ORCHESTRATOR",
            Self::Inventory => "INVENTORY_SVC",
            Self::Payment => "PAYMENT_SVC",
        }
    }
}

/// Four services on one Kafka and one Postgres.
pub struct System {
    pub env: &'static TestEnv,
    pub http: reqwest::Client,
    directory: PathBuf,
    ports: BTreeMap<Service, u16>,
    pub databases: BTreeMap<Service, String>,
    processes: Mutex<BTreeMap<Service, Process>>,
    in_use: RwLock<()>,
}

/// The time limit for a service to become ready, and for everything else that a test waits for. It is far above the
/// usual time, so that only a real fault exceeds it, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The definitions that orders may ask for. The last two exist only in tests.
const ORDER_DEFINITIONS: [&str; 4] = [
    "place-order",
    "place-order-payment-first",
    "place-order-impatient",
    "place-order-patient",
];

/// The topic and consumer group of the participant in the tests' own sagas.
pub const SHIPPING_TOPIC: &str = "shipping.commands";
pub const SHIPPING_GROUP: &str = "shipping-svc";

static SYSTEM: OnceCell<System> = OnceCell::const_new();

/// Returns the names of all topics, with their numbers of partitions.
fn topics() -> Vec<(String, i32)> {
    saga_contracts::topic::ALL
        .into_iter()
        .chain([SHIPPING_TOPIC])
        .flat_map(|topic| {
            [
                (topic.to_owned(), 2),
                (saga_contracts::topic::dead_letters_of(topic), 1),
            ]
        })
        .collect()
}

async fn create_topics(env: &TestEnv) {
    let topics = topics();
    let topics: Vec<(&str, i32)> = topics
        .iter()
        .map(|(name, partitions)| (name.as_str(), *partitions))
        .collect();
    env.create_topics(&topics).await;
}

impl System {
    async fn instance(binary: &str) -> &'static System {
        SYSTEM
            .get_or_init(|| async {
                System::start(Path::new(binary))
                    .await
                    .expect("the system under test starts")
            })
            .await
    }

    /// Returns the system, shared with other tests. For tests that do not disturb other tests.
    pub async fn shared(binary: &str) -> (&'static System, RwLockReadGuard<'static, ()>) {
        let system = Self::instance(binary).await;
        (system, system.in_use.read().await)
    }

    /// Returns the system, held exclusively. For tests that stop or kill parts of the system.
    pub async fn alone(binary: &str) -> (&'static System, RwLockWriteGuard<'static, ()>) {
        let system = Self::instance(binary).await;
        (system, system.in_use.write().await)
    }

    async fn start(binary: &Path) -> Result<System> {
        let env = TestEnv::shared().await;
        create_topics(env).await;
        let directory = std::env::temp_dir().join(env.unique("saga-e2e"));
        std::fs::create_dir_all(&directory)?;
        let mut system = System {
            env,
            http: saga_test_support::http_client(),
            directory,
            ports: BTreeMap::new(),
            databases: BTreeMap::new(),
            processes: Mutex::new(BTreeMap::new()),
            in_use: RwLock::new(()),
        };
        for service in Service::ALL {
            system.ports.insert(service, saga_servers::free_port());
            system
                .databases
                .insert(service, env.create_database(service.name()).await);
        }
        std::fs::create_dir_all(system.definitions())?;
        for service in Service::ALL {
            let process = system.process(service, binary);
            system
                .processes
                .lock()
                .expect("lock")
                .insert(service, process);
        }
        for service in Service::ALL {
            system
                .processes
                .lock()
                .expect("lock")
                .get_mut(&service)
                .context("process")?
                .spawn()?;
        }
        for service in Service::ALL {
            system.ready(service).await?;
        }
        Ok(system)
    }

    /// Deletes all topics, and recreates them. The services must be stopped.
    pub async fn recreate_topics(&self) {
        let topics = topics();
        let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
        self.env.delete_topics(&names).await;
        create_topics(self.env).await;
    }

    /// Returns the directory for the tests' own definitions. The orchestrator reads it when it starts.
    pub fn definitions(&self) -> PathBuf {
        self.directory.join("definitions")
    }

    fn process(&self, service: Service, binary: &Path) -> Process {
        let set = |key: &str| format!("{}__{key}", service.prefix());
        let mut environment: BTreeMap<String, String> = [
            (SERVICE_VARIABLE.to_owned(), service.name().to_owned()),
            (set("POSTGRES__URL"), self.databases[&service].clone()),
            (set("KAFKA__BROKERS"), self.env.brokers()),
            (
                set("HTTP__LISTEN"),
                format!("127.0.0.1:{}", self.ports[&service]),
            ),
            (set("LOG__FORMAT"), "human".to_owned()),
        ]
        .into();
        match service {
            Service::Order => {
                environment.insert(set("ORCHESTRATOR_URL"), self.url(Service::Orchestrator, ""));
                environment.insert(set("ORDERS__DEFINITIONS"), ORDER_DEFINITIONS.join(","));
            }
            Service::Orchestrator => {
                environment.insert(
                    set("DEFINITIONS_DIR"),
                    self.definitions().to_string_lossy().into_owned(),
                );
                environment.insert(
                    set("PARTICIPANTS__SHIPPING__TOPIC"),
                    SHIPPING_TOPIC.to_owned(),
                );
                environment.insert(
                    set("PARTICIPANTS__SHIPPING__GROUP"),
                    SHIPPING_GROUP.to_owned(),
                );
            }
            Service::Inventory | Service::Payment => {}
        }
        Process {
            binary: binary.to_owned(),
            environment,
            log: self.directory.join(format!("{}.log", service.name())),
            child: None,
        }
    }

    pub fn url(&self, service: Service, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[&service])
    }

    /// Waits until a service reports that it is ready. If its process exits before that, the error contains the last
    /// lines of its log.
    pub async fn ready(&self, service: Service) -> Result<()> {
        until(service.name(), PATIENCE, || async {
            if let Some(ended) = self.with_process(service, |process| Ok(process.ended()))? {
                return Ok(Err(ended));
            }
            let url = self.url(service, "/health/ready");
            self.http.get(url).send().await?.error_for_status()?;
            anyhow::Ok(Ok(()))
        })
        .await
        .map_err(anyhow::Error::msg)
    }

    /// Sends SIGTERM and returns when the service has drained.
    pub fn stop(&self, service: Service) -> Result<()> {
        self.with_process(service, Process::stop)
    }

    /// Sends SIGKILL.
    pub fn kill(&self, service: Service) -> Result<()> {
        self.with_process(service, Process::kill)
    }

    /// Starts the service again without waiting until it is ready.
    pub fn spawn(&self, service: Service) -> Result<()> {
        self.with_process(service, Process::spawn)
    }

    /// Starts the service again and waits until it is ready.
    pub async fn restart(&self, service: Service) -> Result<()> {
        self.spawn(service)?;
        self.ready(service).await
    }

    /// Starts another process of the service with another database beside the running one. Returns its exit status and
    /// its log once it has exited by itself.
    pub async fn run_stranger(
        &self,
        service: Service,
        database: &str,
    ) -> Result<(ExitStatus, String)> {
        let mut stranger = self.with_process(service, |process| {
            let set = |key: &str| format!("{}__{key}", service.prefix());
            let mut environment = process.environment.clone();
            environment.insert(set("POSTGRES__URL"), database.to_owned());
            let listen = format!("127.0.0.1:{}", saga_servers::free_port());
            environment.insert(set("HTTP__LISTEN"), listen);
            Ok(Process {
                binary: process.binary.clone(),
                environment,
                log: self.directory.join(self.env.unique("stranger.log")),
                child: None,
            })
        })?;
        stranger.spawn()?;
        let status = until("the stranger exits", PATIENCE, || {
            std::future::ready(stranger.exited())
        })
        .await;
        Ok((status, stranger.tail()))
    }

    /// Returns the service's exit status if it has exited by itself.
    pub fn exited(&self, service: Service) -> Result<Option<ExitStatus>> {
        self.with_process(service, |process| Ok(process.exited()))
    }

    /// Returns the last lines of the service's log.
    pub fn tail(&self, service: Service) -> Result<String> {
        self.with_process(service, |process| Ok(process.tail()))
    }

    /// Sets or removes an environment variable of the service. The change takes effect at its next start.
    pub fn set_environment(&self, service: Service, name: &str, value: Option<&str>) -> Result<()> {
        self.with_process(service, |process| {
            match value {
                Some(value) => process
                    .environment
                    .insert(name.to_owned(), value.to_owned()),
                None => process.environment.remove(name),
            };
            Ok(())
        })
    }

    /// Sets or removes a key of the service's configuration. The change takes effect at its next start.
    pub fn configure(&self, service: Service, key: &str, value: Option<&str>) {
        let name = format!("{}__{key}", service.prefix());
        let mut processes = self.processes.lock().expect("lock");
        let environment = &mut processes.get_mut(&service).expect("process").environment;
        match value {
            Some(value) => environment.insert(name, value.to_owned()),
            None => environment.remove(&name),
        };
    }

    fn with_process<T>(
        &self,
        service: Service,
        act: impl FnOnce(&mut Process) -> Result<T>,
    ) -> Result<T> {
        let mut processes = self.processes.lock().expect("lock");
        act(processes.get_mut(&service).context("no such process")?)
    }
}
