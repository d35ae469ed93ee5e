//! The system that faults are injected into: a private Kafka and a private Postgres, two processes of every service,
//! and a proxy in every connection.
//!
//! ```text
//!  clients ─▶ ⇄ ─▶ order-svc-0/1 ─▶ ⇄ ─▶ orchestrator-0/1 (HTTP)
//!                       every copy ─▶ ⇄ ─▶ postgres
//!                       every copy ─▶ ⇄ ─▶ kafka, each by a listener of its own whose advertised address is the proxy
//! ```
//!
//! A Kafka client connects to the addresses that the broker advertises. With a proxy but no listener of its own, each
//! copy would bypass the proxy after the broker's first answer.

use super::{
    member::{Launch, Member},
    plan::{COPIES, Copy, Link},
    store,
};
use anyhow::{Context, Result, bail};
use saga_audit::Sources;
use saga_harness::{Service, serve::SERVICE_VARIABLE};
use saga_messaging::kafka::{KafkaConfig, TopicSpec, ensure_topics};
use saga_servers::{KafkaOptions, KafkaServer, PostgresOptions, PostgresServer, free_port};
use saga_test_support::proxy::{Proxy, Weather};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Enough for every connection pool of every copy, and the harness.
const MAX_CONNECTIONS: u32 = 400;
const READY_LIMIT: Duration = Duration::from_mins(2);
const METRICS_LIMIT: Duration = Duration::from_secs(2);
const READY_POLL: Duration = Duration::from_millis(100);
const SUPERVISION: Duration = Duration::from_millis(500);

/// Rules that make the gateway misbehave for the amounts that clients use for this purpose.
const GATEWAY_RULES: &str = r#"[
  { amount_minor = 1313, operation = "charge", effect = "time_out", times = 1 },
  { amount_minor = 1414, operation = "charge", effect = "delay", delay_ms = 1500 },
  { amount_minor = 1515, operation = "charge", effect = "error", times = 1 },
]"#;

/// Postgres, Kafka, the copies of the services, and the proxies between them.
pub struct Cluster {
    pub postgres: PostgresServer,
    pub kafka: KafkaServer,
    pub http: reqwest::Client,
    pub directory: PathBuf,
    members: BTreeMap<Copy, Member>,
    proxies: BTreeMap<Link, Proxy>,
    /// The port on which each copy itself serves HTTP, behind its proxy.
    ports: BTreeMap<Copy, u16>,
    binaries: Option<PathBuf>,
    /// The number of partitions of each topic.
    partitions: i32,
}

impl Cluster {
    pub async fn start(
        directory: PathBuf,
        binaries: Option<PathBuf>,
        partitions: i32,
    ) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let postgres = PostgresOptions {
            max_connections: MAX_CONNECTIONS,
            // An immediate restart must not lose committed transactions.
            fsync: true,
            ..PostgresOptions::new(directory.join("postgres"), free_port())
        };
        let mut listeners = BTreeMap::new();
        let mut proxies = BTreeMap::new();
        for copy in Copy::all() {
            let listener = free_port();
            listeners.insert(copy, listener);
            proxies.insert(Link::Kafka(copy), Proxy::start(listener).await?);
        }
        let port = free_port();
        let kafka = KafkaOptions {
            extra_properties: listener_properties(port, &listeners, &proxies),
            ..KafkaOptions::new(directory.join("kafka"), port)
        };
        let (postgres, kafka) =
            tokio::try_join!(PostgresServer::start(postgres), KafkaServer::start(kafka))?;
        let mut cluster = Self {
            postgres,
            kafka,
            http: saga_test_support::http_client(),
            directory,
            members: BTreeMap::new(),
            proxies,
            ports: BTreeMap::new(),
            binaries,
            partitions,
        };
        cluster.prepare().await?;
        cluster.start_services().await?;
        Ok(cluster)
    }

    /// Creates the databases, the topics and the remaining proxies.
    async fn prepare(&mut self) -> Result<()> {
        for service in Service::ALL {
            store::create_database(&self.postgres.superuser_url("postgres"), service.name())
                .await
                .with_context(|| format!("the database of {}", service.name()))?;
        }
        let specs: Vec<TopicSpec> = saga_contracts::topic::ALL
            .into_iter()
            .flat_map(|topic| {
                [
                    TopicSpec::new(topic, self.partitions),
                    TopicSpec::dead_letters_of(topic),
                ]
            })
            .collect();
        ensure_topics(&KafkaConfig::plaintext(self.kafka.brokers()), &specs).await?;
        for copy in Copy::all() {
            self.ports.insert(copy, free_port());
            let proxy = Proxy::start(self.postgres.port()).await?;
            self.proxies.insert(Link::Postgres(copy), proxy);
        }
        for number in 0..COPIES {
            let of = |service| Copy { service, number };
            let (orders, sagas) = (
                self.ports[&of(Service::Order)],
                self.ports[&of(Service::Orchestrator)],
            );
            self.proxies
                .insert(Link::Orders(number), Proxy::start(orders).await?);
            self.proxies
                .insert(Link::Sagas(number), Proxy::start(sagas).await?);
        }
        Ok(())
    }

    async fn start_services(&mut self) -> Result<()> {
        for copy in Copy::all() {
            let member = Member::new(self.launch(copy)?);
            member.start()?;
            self.members.insert(copy, member);
        }
        for copy in Copy::all() {
            self.ready(copy).await?;
        }
        Ok(())
    }

    /// Returns how a copy is started. The third copy of a service uses the first copy's proxies and a port of its own.
    pub fn launch(&self, copy: Copy) -> Result<Launch> {
        let twin = Copy {
            number: copy.number % COPIES,
            ..copy
        };
        let name = copy.service.name();
        let prefix = name.to_uppercase().replace('-', "_");
        let set = |key: &str, value: String| (format!("{prefix}__{key}"), value);
        let port = self.ports.get(&copy).copied().unwrap_or_else(free_port);
        let postgres = self.through(Link::Postgres(twin));
        let database = self.postgres.superuser_url(name).replace(
            &format!(":{}/", self.postgres.port()),
            &format!(":{postgres}/"),
        );
        let mut environment: BTreeMap<String, String> = [
            (SERVICE_VARIABLE.to_owned(), name.to_owned()),
            set("POSTGRES__URL", database),
            set(
                "KAFKA__BROKERS",
                format!("127.0.0.1:{}", self.through(Link::Kafka(twin))),
            ),
            set("HTTP__LISTEN", format!("127.0.0.1:{port}")),
            set("LOG__FORMAT", "human".to_owned()),
        ]
        .into();
        match copy.service {
            Service::Order => {
                let sagas = self.through(Link::Sagas(twin.number));
                environment.extend([set("ORCHESTRATOR_URL", format!("http://127.0.0.1:{sagas}"))]);
            }
            Service::Payment => {
                environment.extend([set("GATEWAY__RULES", GATEWAY_RULES.to_owned())]);
            }
            Service::Orchestrator | Service::Inventory => {}
        }
        Ok(Launch {
            binary: match &self.binaries {
                Some(directory) => directory.join(name),
                None => std::env::current_exe()?,
            },
            environment,
            directory: self.directory.clone(),
            log: self.directory.join(format!("{copy}.log")),
        })
    }

    fn through(&self, link: Link) -> u16 {
        self.proxies[&link].port
    }

    pub fn member(&self, copy: Copy) -> &Member {
        &self.members[&copy]
    }

    pub fn set(&self, link: Link, weather: Weather) {
        self.proxies[&link].set(weather);
    }

    pub fn forget_connections(&self, link: Link) {
        self.proxies[&link].forget();
    }

    /// Returns the URL of a copy of order-svc through its proxy, as clients use it.
    pub fn orders_url(&self, number: usize, path: &str) -> String {
        format!(
            "http://127.0.0.1:{}{path}",
            self.through(Link::Orders(number))
        )
    }

    /// Returns the URL of a copy without its proxy.
    pub fn direct_url(&self, copy: Copy, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[&copy])
    }

    /// Returns the URL of a service's database without a proxy.
    pub fn database_url(&self, service: Service) -> String {
        self.postgres.superuser_url(service.name())
    }

    /// Returns the databases and the broker that the audit reads, without proxies.
    pub fn sources(&self) -> Sources {
        Sources {
            orchestrator: self.database_url(Service::Orchestrator),
            order: self.database_url(Service::Order),
            inventory: self.database_url(Service::Inventory),
            payment: self.database_url(Service::Payment),
            brokers: self.kafka.brokers(),
            kafka: Vec::new(),
            orchestrator_group: Sources::DEFAULT_GROUP.to_owned(),
        }
    }

    /// Waits until a copy reports that it is ready.
    pub async fn ready(&self, copy: Copy) -> Result<()> {
        let url = self.direct_url(copy, "/health/ready");
        let began = Instant::now();
        loop {
            let answer = self
                .http
                .get(&url)
                .timeout(Duration::from_secs(2))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(member) = self.members.get(&copy) {
                member.supervise()?;
            }
            if began.elapsed() > READY_LIMIT {
                bail!("{copy} is not ready; see {}", self.directory.display());
            }
            sleep(READY_POLL).await;
        }
    }

    /// Waits until each copy of the orchestrator owns some partitions, and the copies together own all of them.
    pub async fn grouped(&self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut owned = Vec::new();
            for number in 0..COPIES {
                let service = Service::Orchestrator;
                let copy = Copy { service, number };
                owned.push(self.partitions_owned(copy).await.unwrap_or_default());
            }
            if owned.iter().all(|count| *count > 0) && owned.iter().sum::<i32>() == self.partitions
            {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("the orchestrators do not share their partitions: they have {owned:?}");
            }
            sleep(READY_POLL).await;
        }
    }

    async fn partitions_owned(&self, copy: Copy) -> Result<i32> {
        let url = self.direct_url(copy, "/metrics");
        let answer = self.http.get(&url).timeout(METRICS_LIMIT).send().await?;
        let text = answer.error_for_status()?.text().await?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("saga_partitions_owned "));
        // The metric does not exist before the first partition is assigned.
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    /// Starts processes again that have exited without having been stopped. Runs until it is cancelled.
    pub async fn supervise(&self) -> Result<()> {
        loop {
            for member in self.members.values() {
                member.supervise()?;
            }
            sleep(SUPERVISION).await;
        }
    }

    /// Returns the number of times that each copy has exited without having been stopped.
    pub fn ended_by_themselves(&self) -> BTreeMap<String, u64> {
        self.members
            .iter()
            .map(|(copy, member)| (copy.to_string(), member.ended_by_itself()))
            .filter(|(_, times)| *times > 0)
            .collect()
    }

    /// Restores the system after the last fault: opens every connection and starts every process.
    pub fn heal(&self) -> Result<()> {
        for proxy in self.proxies.values() {
            proxy.set(Weather::Fair);
        }
        for member in self.members.values() {
            member.thaw()?;
            member.start()?;
        }
        Ok(())
    }
}

/// Returns the broker's properties: besides the plain listener, one listener for each copy, which advertises that
/// copy's proxy.
fn listener_properties(
    port: u16,
    listeners: &BTreeMap<Copy, u16>,
    proxies: &BTreeMap<Link, Proxy>,
) -> BTreeMap<String, String> {
    let controller = free_port();
    let mut bound = vec![
        format!("PLAINTEXT://127.0.0.1:{port}"),
        format!("CONTROLLER://127.0.0.1:{controller}"),
    ];
    let mut advertised = vec![format!("PLAINTEXT://127.0.0.1:{port}")];
    let mut protocols = vec![
        "CONTROLLER:PLAINTEXT".to_owned(),
        "PLAINTEXT:PLAINTEXT".to_owned(),
    ];
    for (index, (copy, listener)) in listeners.iter().enumerate() {
        let name = format!("COPY{index}");
        let proxy = proxies[&Link::Kafka(*copy)].port;
        bound.push(format!("{name}://127.0.0.1:{listener}"));
        advertised.push(format!("{name}://127.0.0.1:{proxy}"));
        protocols.push(format!("{name}:PLAINTEXT"));
    }
    [
        ("listeners", bound.join(",")),
        ("advertised.listeners", advertised.join(",")),
        ("listener.security.protocol.map", protocols.join(",")),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        (
            "controller.quorum.voters",
            format!("1@127.0.0.1:{controller}"),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Makes sure that all processes in the directory are killed when this process ends, however it ends.
pub fn end_with_us(directory: &Path) {
    let shown = directory.display();
    saga_test_support::environment::reaper::at_end(&format!(
        "for p in /proc/[0-9]*; do case \"$(readlink \"$p/cwd\")\" in '{shown}'*) kill -9 \"${{p#/proc/}}\";; esac; done"
    ));
}
