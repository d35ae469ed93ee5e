//! Postgres pools and migrations.

mod away;

pub use away::is_away;

use crate::{
    config::{Secret, mask_url, masked_url},
    startup::Server,
};
use anyhow::Context;
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use sqlx::{
    ConnectOptions, Connection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    str::FromStr,
    time::Duration,
};
use thiserror::Error;
use tokio::time::timeout;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://role:password@host:port/database?sslmode=verify-full&sslrootcert=…`; its password is masked.
    #[serde(serialize_with = "masked_url")]
    pub url: Secret,
    pub max_connections: u32,
    pub connect_timeout_ms: u64,
}

/// The database, for a start that waits for it.
pub fn server(config: &PostgresConfig) -> Server {
    Server {
        name: "postgres",
        place: mask_url(config.url.expose()),
        is_away,
    }
}

/// A connection that was idle for longer is asked whether it still lives before it is used; one in steady use is not,
/// which saves a round trip a transaction.
const TRUST_IDLE: Duration = Duration::from_secs(1);

/// What every connection of the store sets. Generic plans made on an empty table fell to sequential scans; with these
/// settings the plan is certain. A statement that joins a table with the keys of a batch says `id = ANY(ARRAY[key.id])`: an
/// index can be searched by that, but no merge join be made of it, so that a scan of the whole index, for its order, is not
/// even considered. By `id = key.id` it is, and chosen when the table was nearly empty at its last analysis: then each row
/// was compared with each key. A plan that has to use what is off is rated so dear that Postgres would compile it, which
/// costs 25 ms a statement. The time limits keep a lost client's locks from outliving it for long.
const STORE_SETTINGS: &str = "
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_material = off;
    SET plan_cache_mode = force_generic_plan;
    SET jit = off;
    SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '60s'";

/// A report that takes longer is not worth its load.
const REPORTING_SETTINGS: &str = "
    SET statement_timeout = '15s';
    SET idle_in_transaction_session_timeout = '60s'";

/// The pool for the store: plans are made certain on each connection (`enable_seqscan`, `enable_hashjoin`,
/// `enable_mergejoin` and `enable_material` off, `plan_cache_mode=force_generic_plan`), see DESIGN "Plans".
pub async fn store_pool(config: &PostgresConfig, name: &str) -> Result<PgPool, sqlx::Error> {
    pool(config, name, STORE_SETTINGS).await
}

/// The pool for listings and reports: the planner is free.
pub async fn reporting_pool(config: &PostgresConfig, name: &str) -> Result<PgPool, sqlx::Error> {
    pool(config, &format!("{name} reporting"), REPORTING_SETTINGS).await
}

/// A service's two pools.
#[derive(Clone, Debug)]
pub struct Pools {
    /// See [`store_pool`].
    pub store: PgPool,
    /// See [`reporting_pool`].
    pub reporting: PgPool,
}

/// Both pools of the service `name`.
pub async fn pools(config: &PostgresConfig, name: &str) -> anyhow::Result<Pools> {
    let connect = async {
        Ok::<_, sqlx::Error>(Pools {
            store: store_pool(config, name).await?,
            reporting: reporting_pool(config, name).await?,
        })
    };
    connect.await.context("connecting to Postgres")
}

/// The pool for migrations: one connection, no time limit, since a new index takes what it takes.
pub async fn migration_pool(config: &PostgresConfig, name: &str) -> Result<PgPool, MigrationError> {
    let one = PostgresConfig {
        max_connections: 1,
        ..config.clone()
    };
    pool(
        &one,
        &format!("{name} migrations"),
        "SET statement_timeout = 0",
    )
    .await
    .map_err(|source| MigrationError::Connect {
        url: mask_url(config.url.expose()),
        source,
    })
}

async fn pool(
    config: &PostgresConfig,
    name: &str,
    settings: &'static str,
) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(config.url.expose())?.application_name(name);
    let patience = Duration::from_millis(config.connect_timeout_ms);
    reach(&options, patience).await?;
    PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(patience)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| {
            async move { Ok(metadata.idle_for < TRUST_IDLE || connection.ping().await.is_ok()) }
                .boxed()
        })
        .after_connect(move |connection, _| {
            async move {
                sqlx::raw_sql(settings)
                    .execute(connection)
                    .await
                    .map(|_| ())
            }
            .boxed()
        })
        .connect_with(options)
        .await
}

/// Connects once. A pool tries for as long as it may, and then only says that it did; this says at once what is wrong.
async fn reach(options: &PgConnectOptions, patience: Duration) -> Result<(), sqlx::Error> {
    let attempt = async { options.connect().await?.close().await };
    let late = |_| Err(io::Error::from(ErrorKind::TimedOut).into());
    match timeout(patience, attempt).await.unwrap_or_else(late) {
        // Over TCP no file is needed but what the address names: a certificate, which does not come by waiting.
        Err(sqlx::Error::Io(error))
            if error.kind() == ErrorKind::NotFound && options.get_socket().is_none() =>
        {
            Err(sqlx::Error::Configuration(error.into()))
        }
        result => result,
    }
}

/// Says whether the database answers, for `/health`.
pub async fn health(pool: PgPool) -> Result<(), String> {
    let answer = sqlx::query("SELECT 1").execute(&pool).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}

/// Why a database is not as the service needs it.
#[derive(Debug, Error)]
pub enum MigrationError {
    #[error("cannot connect to {url}")]
    Connect {
        url: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("the database cannot be brought up to date")]
    Apply(#[source] MigrateError),
    #[error("the history of migrations cannot be read")]
    Read(#[source] sqlx::Error),
    #[error(
        "the database lacks migration {version} ({description}): run the `migrate` subcommand, or start with --migrate=auto"
    )]
    Missing { version: i64, description: String },
    #[error(
        "migration {version} was begun and never finished: repair the database by hand, then remove its row from {table}"
    )]
    Unfinished { version: i64, table: String },
    #[error("migration {version} in the database differs from the one in this program")]
    Changed { version: i64 },
}

/// Applies what is missing. Safe while other processes do the same: the migrator holds an advisory lock. A newer version
/// of the service may have been here, so migrations that this program does not know are no error.
pub async fn migrate(pool: &PgPool, migrator: &Migrator) -> Result<(), MigrationError> {
    let mut forward = Migrator::with_migrations(migrator.iter().cloned().collect());
    forward.set_ignore_missing(true);
    forward.dangerous_set_table_name(migrator.table_name.clone());
    forward.run(pool).await.map_err(MigrationError::Apply)
}

/// [`migrate`]s the database by each of `migrators`, over a connection of its own.
pub async fn migrate_all(
    config: &PostgresConfig,
    name: &str,
    migrators: &[&Migrator],
) -> Result<(), MigrationError> {
    let pool = migration_pool(config, name).await?;
    for migrator in migrators {
        migrate(&pool, migrator).await?;
    }
    pool.close().await;
    Ok(())
}

/// [`check`]s the database by each of `migrators`, over a connection of its own.
pub async fn check_all(
    config: &PostgresConfig,
    name: &str,
    migrators: &[&Migrator],
) -> Result<(), MigrationError> {
    let pool = migration_pool(config, name).await?;
    for migrator in migrators {
        check(&pool, migrator).await?;
    }
    pool.close().await;
    Ok(())
}

/// Fails if anything is missing; changes nothing.
pub async fn check(pool: &PgPool, migrator: &Migrator) -> Result<(), MigrationError> {
    let table = migrator.table_name.as_ref();
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(pool)
        .await
        .map_err(MigrationError::Read)?;
    let mut applied: BTreeMap<i64, (Vec<u8>, bool)> = BTreeMap::new();
    if exists {
        // The name comes from the program, never from outside.
        let query = sqlx::AssertSqlSafe(format!("SELECT version, checksum, success FROM {table}"));
        let rows: Vec<(i64, Vec<u8>, bool)> = sqlx::query_as(query)
            .fetch_all(pool)
            .await
            .map_err(MigrationError::Read)?;
        applied.extend(
            rows.into_iter()
                .map(|(version, sum, success)| (version, (sum, success))),
        );
    }
    for migration in migrator.iter() {
        let version = migration.version;
        match applied.get(&version) {
            None => {
                let description = migration.description.to_string();
                return Err(MigrationError::Missing {
                    version,
                    description,
                });
            }
            Some((_, false)) => {
                return Err(MigrationError::Unfinished {
                    version,
                    table: table.to_owned(),
                });
            }
            Some((checksum, true)) if *checksum != *migration.checksum => {
                return Err(MigrationError::Changed { version });
            }
            Some((_, true)) => {}
        }
    }
    Ok(())
}
