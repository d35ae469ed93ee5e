//! Postgres for tests.

use super::{
    backend::{Backend, scratch},
    containers::{Container, PASSWORD, SUPERUSER},
    runtime::outlive,
    unique::unique,
    wait::holds_within,
};
use saga_servers::{PostgresOptions, PostgresServer, free_port};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const MAX_CONNECTIONS: u32 = 400;
const READY_LIMIT: Duration = Duration::from_mins(1);
/// The database to connect to when databases are created.
const MAINTENANCE: &str = "postgres";

/// Images differ in their locale; with this clause text is ordered the same on each of them.
const LIKE_EVERYWHERE: &str = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'";

#[derive(Debug)]
enum Node {
    Local(Arc<PostgresServer>),
    Container(Arc<Container>),
}

/// A running Postgres. Its data need not last, so it does not wait for the disk.
#[derive(Debug)]
pub struct TestPostgres {
    node: Node,
}

impl TestPostgres {
    pub(super) async fn start(backend: Backend) -> Result<Self, String> {
        let node = match backend {
            Backend::Local => {
                let options = PostgresOptions {
                    fsync: false,
                    max_connections: MAX_CONNECTIONS,
                    ..PostgresOptions::new(scratch("postgres"), free_port())
                };
                let server = PostgresServer::start(options).await;
                Node::Local(Arc::new(server.map_err(|error| error.to_string())?))
            }
            Backend::Containers => {
                Node::Container(Arc::new(Container::postgres(MAX_CONNECTIONS).await?))
            }
        };
        let server = Self { node };
        server.answers().await?;
        Ok(server)
    }

    /// Returns the URL of a database as the superuser.
    pub fn url(&self, database: &str) -> String {
        match &self.node {
            Node::Local(server) => server.superuser_url(database),
            Node::Container(container) => {
                let port = container.port();
                format!("postgres://{SUPERUSER}:{PASSWORD}@127.0.0.1:{port}/{database}")
            }
        }
    }

    async fn answers(&self) -> Result<(), String> {
        let url = self.url(MAINTENANCE);
        holds_within("Postgres answers", READY_LIMIT, async || {
            PgConnection::connect(&url).await?.close().await
        })
        .await
    }

    async fn run(&self, statements: &[String]) {
        let mut connection = PgConnection::connect(&self.url(MAINTENANCE))
            .await
            .expect("the superuser may connect");
        for statement in statements {
            // `unique` makes the names from a test's own prefix, so they need no escaping.
            sqlx::query(AssertSqlSafe(statement.as_str()))
                .execute(&mut connection)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        connection.close().await.expect("the connection closes");
    }

    /// Creates an empty database with a unique name, and returns its URL as the superuser.
    pub async fn create_database(&self, prefix: &str) -> String {
        let database = unique(prefix);
        self.run(&[format!("CREATE DATABASE \"{database}\" {LIKE_EVERYWHERE}")])
            .await;
        self.url(&database)
    }

    /// Replaces a database by a copy of another one. Both are given by URL; all sessions of both are ended.
    pub async fn replace_by_copy(&self, database: &str, original: &str) {
        let name = |url: &str| {
            let (_, name) = url.rsplit_once('/').expect("the URL names a database");
            name.to_owned()
        };
        let (database, original) = (name(database), name(original));
        self.run(&[
            format!("DROP DATABASE IF EXISTS \"{database}\" WITH (FORCE)"),
            format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{original}'"
            ),
            format!("CREATE DATABASE \"{database}\" TEMPLATE \"{original}\""),
        ])
        .await;
    }

    /// Creates a role and a database that belongs to it and is closed to other roles. Returns the URL as that role.
    pub async fn create_role_and_database(&self, prefix: &str) -> String {
        let name = unique(prefix);
        let password = Uuid::new_v4().simple().to_string();
        self.run(&[
            format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'"),
            format!("CREATE DATABASE \"{name}\" OWNER \"{name}\" {LIKE_EVERYWHERE}"),
            format!("REVOKE CONNECT ON DATABASE \"{name}\" FROM PUBLIC"),
        ])
        .await;
        let superuser = self.url(&name);
        let (_, host) = superuser
            .rsplit_once('@')
            .expect("the address names a host");
        format!("postgres://{name}:{password}@{host}")
    }

    /// Pauses the server with all its sessions.
    pub async fn pause(&self) {
        match &self.node {
            Node::Local(server) => server.pause(),
            Node::Container(container) => container.pause().await,
        }
    }

    pub async fn resume(&self) {
        match &self.node {
            Node::Local(server) => server.resume(),
            Node::Container(container) => container.resume().await,
        }
    }

    pub async fn kill(&self) {
        match &self.node {
            Node::Local(server) => server.kill().await,
            Node::Container(container) => container.kill().await,
        }
    }

    pub async fn stop(&self) {
        match &self.node {
            Node::Local(server) => server.stop().await,
            Node::Container(container) => container.stop().await,
        }
    }

    /// Starts the server again after [`kill`](Self::kill) or [`stop`](Self::stop). It is ready when this returns.
    pub async fn start_again(&self) {
        match &self.node {
            Node::Local(server) => {
                let server = Arc::clone(server);
                outlive(async move { server.start_again().await })
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            Node::Container(container) => container.start().await,
        }
        self.answers().await.unwrap_or_else(|late| panic!("{late}"));
    }
}
