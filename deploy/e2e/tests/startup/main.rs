//! Services that start before their servers, or run while a server restarts. Each test has servers of its own, so nothing
//! here shares the system of the other end-to-end tests.

use anyhow::{Context, Result, ensure};
use saga_contracts::topic;
use saga_harness::{
    OrderRequest, Service,
    process::{Process, STOP_DEADLINE},
    serve::SERVICE_VARIABLE,
    system::PATIENCE,
};
use saga_service::config::environment_prefix;
use saga_test_support::environment::{Server, TestEnv, until};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, process::Command, time::Duration};
use uuid::Uuid;

const BINARY: &str = env!("CARGO_BIN_EXE_saga-e2e-service");
/// An address at which nothing listens.
const NOWHERE: &str = "127.0.0.1:1";
/// The limit for stopping a service that waits. A stop must end the wait, so the limit is below the 20 s that draining
/// may take. A service with work may take [`STOP_DEADLINE`].
const PROMPTLY: Duration = Duration::from_secs(10);

/// A service that uses nothing of the harness's system.
struct Starting {
    process: Process,
    port: u16,
    password: String,
}

impl Starting {
    fn spawn(service: Service, postgres_url: &str, brokers: &str) -> Result<Self> {
        Self::spawn_with(service, postgres_url, brokers, &[])
    }

    fn spawn_with(
        service: Service,
        postgres_url: &str,
        brokers: &str,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let port = saga_servers::free_port();
        let prefix = environment_prefix(service.name());
        let mut environment: BTreeMap<String, String> = [
            (SERVICE_VARIABLE.to_owned(), service.name().to_owned()),
            (format!("{prefix}__POSTGRES__URL"), postgres_url.to_owned()),
            (format!("{prefix}__KAFKA__BROKERS"), brokers.to_owned()),
            (format!("{prefix}_LISTEN"), format!("127.0.0.1:{port}")),
            (format!("{prefix}__LOG__FORMAT"), "json".to_owned()),
        ]
        .into();
        for (name, value) in more {
            environment.insert(format!("{prefix}{name}"), (*value).to_owned());
        }
        let mut process = Process {
            binary: BINARY.into(),
            environment,
            log: std::env::temp_dir().join(format!("saga-startup-{port}.log")),
            child: None,
        };
        process.spawn()?;
        let (credentials, _) = postgres_url.rsplit_once('@').context("credentials")?;
        let (_, password) = credentials.rsplit_once(':').context("a password")?;
        Ok(Self {
            process,
            port,
            password: password.to_owned(),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn ask(&self, path: &str) -> Result<(u16, Value)> {
        let answer = saga_test_support::http_client()
            .get(self.url(path))
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// Waits until the service reports that it waits for `server`, and checks that its log says so too.
    async fn waits_for(&mut self, server: &str) -> Result<()> {
        let what = format!("{} waits for {server}", self.process.name());
        until(&what, PATIENCE, async || {
            let (status, ready) = self.ask("/health/ready").await?;
            let awaited = &ready["waitingFor"][0];
            ensure!(
                status == 503 && awaited["name"] == server && awaited["detail"].is_string(),
                "{status} {ready}\n{}",
                self.process.tail()
            );
            anyhow::Ok(())
        })
        .await;
        assert_eq!(self.ask("/health/live").await?.0, 200);
        let (status, health) = self.ask("/health").await?;
        assert_eq!((status, &health["status"]), (503, &"down".into()));
        let log = fs::read_to_string(&self.process.log)?;
        ensure!(log.contains(&format!("waiting for {server}")), "{log}");
        ensure!(log.contains("retry_in_ms"), "{log}");
        ensure!(!log.contains(&self.password), "{log}");
        let ended = self.process.ended();
        ensure!(ended.is_none(), "{ended:?}");
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let what = format!("{} is ready", self.process.name());
        until(&what, PATIENCE, async || {
            for path in ["/health/ready", "/health"] {
                let (status, said) = self.ask(path).await?;
                ensure!(status == 200, "{said}\n{}", self.process.tail());
            }
            anyhow::Ok(())
        })
        .await;
        Ok(())
    }

    /// Waits until the service reports that both servers are unavailable, and checks that the service still runs.
    async fn bears_it(&mut self) -> Result<()> {
        let what = format!("{} misses its servers", self.process.name());
        until(&what, PATIENCE, async || {
            let (status, health) = self.ask("/health").await?;
            let dependencies = health["dependencies"].as_array().context("dependencies")?;
            let down = |name: &str| {
                let mut all = dependencies.iter();
                all.any(|one| one["name"] == name && one["status"] == "down")
            };
            ensure!(
                status == 503 && down("postgres") && down("kafka"),
                "{health}"
            );
            anyhow::Ok(())
        })
        .await;
        assert_eq!(self.ask("/health/live").await?.0, 200);
        let ended = self.process.ended();
        ensure!(ended.is_none(), "{ended:?}");
        Ok(())
    }

    /// Waits until the process has exited, and returns its exit code.
    async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let what = format!("{} ends", self.process.name());
        let process = &mut self.process;
        let mut exited = None;
        until(&what, limit, || {
            exited = process.exited();
            let ended = exited.ok_or_else(|| process.tail()).map(drop);
            async move { ended }
        })
        .await;
        exited.and_then(|status| status.code())
    }

    /// Sends SIGTERM, and checks that the service exits with code 0 within `limit`.
    async fn stops(&mut self, limit: Duration) -> Result<()> {
        let child = self.process.child.as_ref().context("it runs")?;
        let kill = Command::new("kill").arg(child.id().to_string()).status()?;
        ensure!(kill.success());
        let code = self.ended(limit).await;
        ensure!(code == Some(0), "{code:?}\n{}", self.process.tail());
        Ok(())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // Cleans up after a failed test; errors cannot be reported here.
        self.process.kill().ok();
        fs::remove_file(&self.process.log).ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_wait_for_their_servers_and_continue_once_they_are_available() -> Result<()> {
    let env = TestEnv::exclusive().await;
    for topic in topic::ALL {
        env.create_topics(&[(topic, 2), (&topic::dead_letters_of(topic), 1)])
            .await;
    }
    let mut urls = Vec::new();
    for service in Service::ALL {
        urls.push(env.create_role_and_database(service.name()).await);
    }
    env.stop(Server::Postgres).await;
    env.stop(Server::Kafka).await;
    let mut services = Vec::new();
    for (service, url) in Service::ALL.into_iter().zip(&urls) {
        services.push(Starting::spawn(service, url, &env.brokers())?);
    }
    for service in &mut services {
        service.waits_for("postgres").await?;
        let (status, problem) = service.ask("/anything").await?;
        assert_eq!(
            (status, &problem["type"]),
            (503, &"/problems/unavailable".into())
        );
    }
    env.start(Server::Postgres).await;
    for service in &mut services {
        service.waits_for("kafka").await?;
    }
    env.start(Server::Kafka).await;
    for service in &mut services {
        service.ready().await?;
    }
    an_order_is_confirmed(&services).await?;
    // Running services tolerate an outage of the servers that they waited for.
    env.stop(Server::Kafka).await;
    env.stop(Server::Postgres).await;
    for service in &mut services {
        service.bears_it().await?;
    }
    env.start(Server::Postgres).await;
    env.start(Server::Kafka).await;
    for service in &mut services {
        service.ready().await?;
    }
    an_order_is_confirmed(&services).await?;
    for service in &mut services {
        service.stops(STOP_DEADLINE).await?;
    }
    Ok(())
}

async fn an_order_is_confirmed(services: &[Starting]) -> Result<()> {
    let http = saga_test_support::http_client();
    let find = |service: Service| {
        let is_it = |one: &&Starting| one.process.name() == service.name();
        services.iter().find(is_it).context("it was started")
    };
    let product = Uuid::new_v4();
    let stock = find(Service::Inventory)?.url(&format!("/stock/{product}"));
    let stocked = http
        .put(stock)
        .json(&json!({"available": 1}))
        .send()
        .await?;
    stocked.error_for_status()?;
    let orders = find(Service::Order)?.url("/orders");
    let order = OrderRequest::one(product, 1, 5.0).body;
    let placed = http
        .post(&orders)
        .json(&order)
        .send()
        .await?
        .error_for_status()?;
    let placed: Value = placed.json().await?;
    let id = placed["id"].as_str().context("an id")?;
    until("the order is confirmed", PATIENCE, async || {
        let order = http.get(format!("{orders}/{id}")).send().await?;
        let order: Value = order.json().await?;
        ensure!(order["status"] == "CONFIRMED", "{order}");
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_wait_for_a_database() -> Result<()> {
    let url = format!("postgres://saga:hunter2@{NOWHERE}/saga");
    let mut services = Vec::new();
    for service in Service::ALL {
        services.push(Starting::spawn(service, &url, NOWHERE)?);
    }
    for service in &mut services {
        service.waits_for("postgres").await?;
        service.stops(PROMPTLY).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_wait_for_a_broker() -> Result<()> {
    let postgres = TestEnv::postgres_only().await;
    let mut services = Vec::new();
    for service in Service::ALL {
        let url = postgres.create_role_and_database(service.name()).await;
        services.push(Starting::spawn(service, &url, NOWHERE)?);
    }
    for service in &mut services {
        service.waits_for("kafka").await?;
        service.stops(PROMPTLY).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permanent_errors_end_the_startup() -> Result<()> {
    let postgres = TestEnv::postgres_only().await;
    let url = postgres.create_role_and_database("refused").await;
    let (server, _) = url.rsplit_once('/').context("a database")?;
    let (credentials, place) = url.rsplit_once('@').context("credentials")?;
    let (role, _) = credentials.rsplit_once(':').context("a password")?;
    let cases = [
        (
            format!("{role}:wrong@{place}"),
            "auto",
            "password authentication failed",
        ),
        (
            format!("{server}/nonesuch"),
            "auto",
            "database \"nonesuch\" does not exist",
        ),
        (url.clone(), "check", "start with --migrate=auto"),
    ];
    for (url, migrate, expected) in cases {
        for service in Service::ALL {
            let more = [("_MIGRATE", migrate)];
            let mut refused = Starting::spawn_with(service, &url, NOWHERE, &more)?;
            let code = refused.ended(PATIENCE).await;
            let said = refused.process.tail();
            ensure!(
                code == Some(1) && said.contains(expected),
                "{code:?}: {said}"
            );
            ensure!(!said.contains("waiting for"), "{said}");
        }
    }
    Ok(())
}
