//! Pools of connections, and the settings of their connections.

use crate::{clock::Clock, config::PostgresConfig};
use futures_util::{FutureExt, TryFutureExt};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    io::{self, ErrorKind},
    str::FromStr,
    time::Duration,
};
use thiserror::Error;
use tokio::time::timeout;

/// A connection that was idle for longer is pinged before use. A connection in steady use is not pinged, which saves a
/// round trip per transaction.
const TRUST_IDLE: Duration = Duration::from_secs(1);

/// The time limit of a ping: when a connection that was idle leaves the pool, and when a connection is returned. Work
/// that is cancelled in the middle of a statement returns a connection in an unknown state. If that connection has gone
/// silent, the pool would wait on it for ever and have one connection fewer.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// Puts the keepalive settings of every connection before its other settings. The client library can set no keepalive,
/// so the server does: 30 s after a client's host has vanished, the server closes the connection that it waits on and
/// releases its locks. Otherwise only `idle_in_transaction_session_timeout` would, which migrations do not have, and
/// connections at rest would stay for hours.
macro_rules! settings {
    ($rest:literal) => {
        concat!(
            "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4;",
            $rest
        )
    };
}

/// The settings of every connection of the store. Generic plans made on an empty table fell back to sequential scans;
/// with these settings the plans are fixed. Joins with a batch's keys are written `id = ANY(ARRAY[key.id])`: this
/// allows an index scan per key and rules out a merge join, which scans the whole index for its order. The planner
/// picks a merge join for `id = key.id` when the table was nearly empty at its last ANALYZE; then every row is compared
/// with every key. JIT is off: a plan that has to use a disabled node gets so high a cost that Postgres would compile
/// it, which takes 25 ms a statement. The time limits are below the client's own ([`SILENCE_LIMIT`]), so that a client
/// whose connection went silent finds its locks released when it retries.
///
/// [`SILENCE_LIMIT`]: crate::silence::SILENCE_LIMIT
const STORE_SETTINGS: &str = settings!(
    "
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET enable_material = off;
    SET plan_cache_mode = force_generic_plan;
    SET jit = off;
    SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '30s'"
);

/// The settings of the reporting pool. A report that takes longer is not worth its load.
const REPORTING_SETTINGS: &str = settings!(
    "
    SET statement_timeout = '15s';
    SET idle_in_transaction_session_timeout = '30s'"
);

/// The settings of the connection for migrations.
pub(crate) const MIGRATION_SETTINGS: &str = settings!("SET statement_timeout = 0");

/// Opens the pool for the store. Each connection fixes its plans (`enable_seqscan`, `enable_hashjoin`,
/// `enable_mergejoin` and `enable_material` off, `plan_cache_mode=force_generic_plan`), see orchestrator/README.md,
/// Plans.
pub async fn store_pool(config: &PostgresConfig, name: &str) -> Result<PgPool, sqlx::Error> {
    open(config, name, STORE_SETTINGS).await
}

/// Opens the pool for listings and reports, with the planner's default settings.
pub async fn reporting_pool(config: &PostgresConfig, name: &str) -> Result<PgPool, sqlx::Error> {
    open(config, &format!("{name} reporting"), REPORTING_SETTINGS).await
}

/// A service's two pools.
#[derive(Clone, Debug)]
pub struct Pools {
    /// The pool opened by [`store_pool`].
    pub store: PgPool,
    /// The pool opened by [`reporting_pool`].
    pub reporting: PgPool,
}

/// The error of [`pools`].
#[derive(Debug, Error)]
#[error("connecting to Postgres")]
pub struct ConnectError(#[from] sqlx::Error);

/// Opens both pools of the service `name`.
pub async fn pools(config: &PostgresConfig, name: &str) -> Result<Pools, ConnectError> {
    let store = store_pool(config, name).await?;
    // The clock must be set before the first id or record is stamped.
    Clock::of_process().look(&store).await?;
    Ok(Pools {
        store,
        reporting: reporting_pool(config, name).await?,
    })
}

pub(crate) async fn open(
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
            async move { Ok(metadata.idle_for < TRUST_IDLE || ping(connection).await.is_ok()) }
                .boxed()
        })
        // An error closes the connection without a message to a server that may be unreachable.
        .after_release(|connection, _| ping(connection).map_ok(|()| true).boxed())
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

async fn ping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let late = |_| Err(io::Error::from(ErrorKind::TimedOut).into());
    timeout(PING_LIMIT, connection.ping())
        .await
        .unwrap_or_else(late)
}

/// Connects once and returns the error of that attempt. A pool retries until its timeout and then reports only the
/// timeout.
async fn reach(options: &PgConnectOptions, patience: Duration) -> Result<(), sqlx::Error> {
    let attempt = async { options.connect().await?.close().await };
    let late = |_| Err(io::Error::from(ErrorKind::TimedOut).into());
    match timeout(patience, attempt).await.unwrap_or_else(late) {
        // Over TCP the only files are those that the URL names, such as a certificate. A missing file does not appear by
        // waiting.
        Err(sqlx::Error::Io(error))
            if error.kind() == ErrorKind::NotFound && options.get_socket().is_none() =>
        {
            Err(sqlx::Error::Configuration(error.into()))
        }
        result => result,
    }
}

/// Checks that the database answers, for `/health`.
pub async fn health(pool: PgPool) -> Result<(), String> {
    let answer = sqlx::query("SELECT 1").execute(&pool).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}
