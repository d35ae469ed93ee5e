//! Real servers for tests: one Postgres and one Kafka for each test binary.
//!
//! The servers are containers if a Docker engine answers and has the images (or can pull them), else processes of this
//! machine through `saga-servers`. A line on stderr names the choice. `SAGA_TEST_ENV=containers|local` forces it. If
//! neither is possible, the test fails and says what to install: a test that did not run must not look like a test that
//! passed.
//!
//! The images are public images unless `SAGA_TEST_POSTGRES_IMAGE` and `SAGA_TEST_KAFKA_IMAGE` name others.
//!
//! ```no_run
//! # async fn example() {
//! use saga_test_support::environment::{Server, TestEnv, until};
//! use std::time::Duration;
//!
//! let env = TestEnv::shared().await;
//! let database_url = env.create_database("orders").await;
//! let topic = env.unique("orders");
//! env.create_topics(&[(&topic, 2)]).await;
//!
//! // A test that hurts a server takes an environment of its own: the shared one serves other tests at the same time.
//! let own = TestEnv::exclusive().await;
//! own.kill(Server::Kafka).await;
//! own.start(Server::Kafka).await;
//! until("the order is confirmed", Duration::from_secs(10), async || true).await;
//! # }
//! ```

mod backend;
mod containers;
mod kafka;
mod postgres;
pub mod reaper;
mod runtime;
mod unique;
mod wait;

pub use kafka::TestKafka;
pub use postgres::TestPostgres;
pub use wait::{Condition, until};

use backend::Backend;
use runtime::outlive;
use tokio::sync::OnceCell;
use unique::unique;

/// The server that a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    Postgres,
    Kafka,
}

/// A Postgres and a Kafka that tests share.
#[derive(Debug)]
pub struct TestEnv {
    postgres: Lent<TestPostgres>,
    kafka: Lent<TestKafka>,
}

/// A server that is shared by the test binary, or that belongs to one environment.
#[derive(Debug)]
enum Lent<T: 'static> {
    Shared(&'static T),
    Own(Box<T>),
}

impl<T> std::ops::Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }
}

/// The result of starting a server. A failure is kept, so that every test of the binary reports it and none tries
/// again.
type Started<T> = Result<T, String>;

static POSTGRES: OnceCell<Started<TestPostgres>> = OnceCell::const_new();
static KAFKA: OnceCell<Started<TestKafka>> = OnceCell::const_new();
static SHARED: OnceCell<TestEnv> = OnceCell::const_new();

async fn shared_postgres() -> &'static TestPostgres {
    let start = || outlive(async { TestPostgres::start(Backend::chosen().await?).await });
    expect_started("Postgres", POSTGRES.get_or_init(start).await.as_ref())
}

async fn shared_kafka() -> &'static TestKafka {
    let start = || outlive(async { TestKafka::start(Backend::chosen().await?).await });
    expect_started("Kafka", KAFKA.get_or_init(start).await.as_ref())
}

fn expect_started<T>(server: &str, started: Result<T, impl std::fmt::Display>) -> T {
    started.unwrap_or_else(|why| panic!("tests need {server}: {why}"))
}

impl TestEnv {
    /// Returns the environment of this test binary, which is started at the first call.
    pub async fn shared() -> &'static Self {
        SHARED
            .get_or_init(|| async {
                let (postgres, kafka) = tokio::join!(shared_postgres(), shared_kafka());
                Self {
                    postgres: Lent::Shared(postgres),
                    kafka: Lent::Shared(kafka),
                }
            })
            .await
    }

    /// Returns the Postgres only, for tests of stores: no Kafka is started.
    pub async fn postgres_only() -> &'static TestPostgres {
        shared_postgres().await
    }

    /// Returns servers that no other test uses, for tests that pause, kill or stop them. They end when the value is
    /// dropped.
    pub async fn exclusive() -> Self {
        let (postgres, kafka) = outlive(async {
            let backend = Backend::chosen().await;
            let (first, second) = (backend.clone(), backend);
            tokio::join!(async { TestPostgres::start(first?).await }, async {
                TestKafka::start(second?).await
            })
        })
        .await;
        Self {
            postgres: Lent::Own(Box::new(expect_started("Postgres", postgres))),
            kafka: Lent::Own(Box::new(expect_started("Kafka", kafka))),
        }
    }

    pub fn postgres(&self) -> &TestPostgres {
        &self.postgres
    }

    pub fn kafka(&self) -> &TestKafka {
        &self.kafka
    }

    /// Returns `host:port`, for `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        self.kafka.brokers()
    }

    /// Returns the URL of a database as the superuser.
    pub fn postgres_url(&self, database: &str) -> String {
        self.postgres.url(database)
    }

    /// Creates an empty database with a unique name, and returns its URL as the superuser.
    pub async fn create_database(&self, prefix: &str) -> String {
        self.postgres.create_database(prefix).await
    }

    /// Creates a role and a database that belongs to it and is closed to other roles. Returns the URL as that role.
    pub async fn create_role_and_database(&self, prefix: &str) -> String {
        self.postgres.create_role_and_database(prefix).await
    }

    /// Creates the topics that do not exist, and waits until each partition has a leader.
    pub async fn create_topics(&self, topics: &[(&str, i32)]) {
        self.kafka.create_topics(topics).await;
    }

    /// Deletes the topics, and waits until no broker knows them.
    pub async fn delete_topics(&self, topics: &[&str]) {
        self.kafka.delete_topics(topics).await;
    }

    /// Returns a name that nothing else on these servers has.
    pub fn unique(&self, prefix: &str) -> String {
        unique(prefix)
    }

    /// Pauses the server: connections stay open, and it does not answer.
    pub async fn pause(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.pause().await,
            Server::Kafka => self.kafka.pause().await,
        }
    }

    pub async fn resume(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.resume().await,
            Server::Kafka => self.kafka.resume().await,
        }
    }

    /// Sends SIGKILL to the server. Everything that was written before is on disk.
    pub async fn kill(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.kill().await,
            Server::Kafka => self.kafka.kill().await,
        }
    }

    /// Stops the server cleanly.
    pub async fn stop(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.stop().await,
            Server::Kafka => self.kafka.stop().await,
        }
    }

    /// Starts the server again after [`kill`](Self::kill) or [`stop`](Self::stop), with the same data on the same port.
    /// It is ready when this returns.
    pub async fn start(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.start_again().await,
            Server::Kafka => self.kafka.start_again().await,
        }
    }
}
