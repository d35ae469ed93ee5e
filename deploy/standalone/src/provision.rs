//! What the services need before they start: databases, roles, topics. Afterwards: something to order.

use crate::options::{Name, Options};
use anyhow::{Context, Result, anyhow};
use saga_contracts::topic;
use saga_messaging::kafka::{KafkaConfig, TopicSpec, ensure_topics};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::{collections::BTreeSet, path::Path};

/// A service's own database, and the role that is the only one to enter it.
#[derive(Clone, Copy, Debug)]
pub struct Database {
    /// Of the database and of the role.
    pub name: &'static str,
}

/// In the order of [`Name::ALL`].
pub const DATABASES: [Database; 4] = [
    Database { name: "orders" },
    Database {
        name: "orchestrator",
    },
    Database { name: "inventory" },
    Database { name: "payments" },
];

/// The URL of a service's own role.
pub fn service_url(options: &Options, data_dir: &Path, database: &Database) -> Result<String> {
    let password = saga_servers::role_password(data_dir, database.name)?;
    let base = match &options.postgres_url {
        Some(url) => url.clone(),
        None => format!("postgres://127.0.0.1:{}", options.postgres_port),
    };
    let mut url: reqwest::Url = base.parse().context("--postgres-url is not a URL")?;
    url.set_path(database.name);
    let user = url.set_username(database.name);
    user.and_then(|()| url.set_password(Some(&password)))
        .map_err(|()| anyhow!("--postgres-url names no host"))?;
    Ok(url.into())
}

/// Makes each service's database and role, if they are not there; no role may enter another's database.
pub async fn databases(options: &Options, superuser_url: &str, data_dir: &Path) -> Result<()> {
    let server = if options.postgres_url.is_some() {
        "the Postgres of --postgres-url"
    } else {
        "Postgres"
    };
    let mut superuser = PgConnection::connect(superuser_url)
        .await
        .with_context(|| format!("connecting to {server} as its superuser"))?;
    // What is in a given server besides our databases is none of our business.
    if options.postgres_url.is_none() {
        run(
            &mut superuser,
            "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC",
        )
        .await?;
    }
    for database in &DATABASES {
        let password = saga_servers::role_password(data_dir, database.name)?;
        make(&mut superuser, database.name, &password)
            .await
            .with_context(|| format!("making the database and the role {}", database.name))?;
    }
    superuser.close().await.context("closing the connection")
}

/// Names and passwords are ours: letters and digits only. Utility statements take no parameters.
async fn make(superuser: &mut PgConnection, name: &str, password: &str) -> Result<()> {
    const ROLE: &str = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    const DATABASE: &str = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    let verb = if exists(superuser, ROLE, name).await? {
        "ALTER"
    } else {
        "CREATE"
    };
    run(
        superuser,
        &format!("{verb} ROLE {name} LOGIN PASSWORD '{password}'"),
    )
    .await?;
    if !exists(superuser, DATABASE, name).await? {
        run(superuser, &format!("CREATE DATABASE {name} OWNER {name}")).await?;
    }
    run(
        superuser,
        &format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
    )
    .await
}

async fn exists(connection: &mut PgConnection, question: &'static str, name: &str) -> Result<bool> {
    Ok(sqlx::query_scalar(question)
        .bind(name)
        .fetch_one(connection)
        .await?)
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await?;
    Ok(())
}

/// As few as the parallelism of one machine needs: Kafka's cost goes with requests, and there is one per partition.
const PARTITIONS: i32 = 2;

/// The shipped topics, those of the user's own participants, and a dead-letter topic each.
pub async fn topics(kafka: &KafkaConfig, participants: Vec<String>) -> Result<()> {
    let mut names: BTreeSet<String> = topic::ALL.into_iter().map(str::to_owned).collect();
    names.extend(participants);
    let specs: Vec<TopicSpec> = names
        .iter()
        .flat_map(|name| {
            [
                TopicSpec::new(name, PARTITIONS),
                TopicSpec::dead_letters_of(name),
            ]
        })
        .collect();
    ensure_topics(kafka, &specs)
        .await
        .context("making the topics")
}

/// A product of the tour.
pub struct Product {
    pub id: &'static str,
    pub name: &'static str,
    pub available: u32,
}

/// Ids that a person can remember.
pub const SHELF: Product = Product {
    id: "a0000000-0000-4000-8000-000000000001",
    name: "Keyboard",
    available: 1_000,
};
pub const SOLD_OUT: Product = Product {
    id: "a0000000-0000-4000-8000-000000000000",
    name: "Sold out",
    available: 0,
};

const PRODUCTS: [Product; 4] = [
    SHELF,
    Product {
        id: "a0000000-0000-4000-8000-000000000002",
        name: "Monitor",
        available: 250,
    },
    Product {
        id: "a0000000-0000-4000-8000-000000000003",
        name: "Last one",
        available: 1,
    },
    SOLD_OUT,
];

/// Puts the tour's products on the shelf, each only if inventory-svc does not know it.
pub async fn demo_stock(options: &Options) -> Result<()> {
    if !options.runs(Name::InventorySvc) {
        return Ok(());
    }
    let http = reqwest::Client::new();
    for product in &PRODUCTS {
        let url = format!("{}/stock/{}", options.url(Name::InventorySvc), product.id);
        let put = async {
            let known = http.get(&url).send().await?;
            if known.status() != reqwest::StatusCode::NOT_FOUND {
                return known.error_for_status();
            }
            let stock = json!({"available": product.available, "name": product.name});
            http.put(&url).json(&stock).send().await?.error_for_status()
        };
        put.await.context("putting the demo stock on the shelf")?;
    }
    Ok(())
}
