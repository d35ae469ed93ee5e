//! Tests pools and migrations on a real Postgres.

use saga_core::secret::Secret;
use saga_postgres::{
    PostgresConfig, health, is_unavailable,
    migrations::{MigrationError, check, migrate, migration_pool},
    reporting_pool,
    silence::limited_to,
    store_pool,
};
use saga_test_support::{environment::TestEnv, proxy::Proxy};
use sqlx::{
    PgPool,
    migrate::{Migration, MigrationType, Migrator},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

async fn database() -> PostgresConfig {
    let server = TestEnv::postgres_only().await;
    PostgresConfig {
        url: Secret::new(server.create_database("service").await),
        max_connections: 2,
        connect_timeout_ms: 5000,
    }
}

async fn setting(pool: &PgPool, name: &str) -> String {
    let query = sqlx::query_scalar("SELECT current_setting($1)").bind(name);
    query.fetch_one(pool).await.expect("setting")
}

#[tokio::test]
async fn the_stores_plans_are_certain_and_reports_are_free() {
    let config = database().await;
    let store = store_pool(&config, "shop").await.expect("pool");
    for name in [
        "enable_seqscan",
        "enable_hashjoin",
        "enable_mergejoin",
        "enable_material",
    ] {
        assert_eq!(setting(&store, name).await, "off", "{name}");
    }
    assert_eq!(
        setting(&store, "plan_cache_mode").await,
        "force_generic_plan"
    );
    assert_eq!(setting(&store, "application_name").await, "shop");
    let reporting = reporting_pool(&config, "shop").await.expect("pool");
    assert_eq!(setting(&reporting, "enable_seqscan").await, "on");
    assert_eq!(
        setting(&reporting, "application_name").await,
        "shop reporting"
    );
    health(store).await.expect("up");
}

/// A vanished client's locks would stay until the operating system's keepalives end, after two hours.
#[tokio::test]
async fn the_server_notices_clients_that_vanished_on_every_connection() {
    let config = database().await;
    let pools = [
        store_pool(&config, "shop").await.expect("pool"),
        reporting_pool(&config, "shop").await.expect("pool"),
        migration_pool(&config, "shop").await.expect("pool"),
    ];
    for pool in pools {
        for (name, value) in [
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "4"),
        ] {
            let show = sqlx::AssertSqlSafe(format!("SHOW {name}"));
            let shown: String = sqlx::query_scalar(show)
                .fetch_one(&pool)
                .await
                .expect("shown");
            assert_eq!(shown, value, "{name}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_died_while_idle_is_replaced() {
    let config = database().await;
    let pool = store_pool(&config, "idle").await.expect("pool");
    let admin = reporting_pool(&config, "killer").await.expect("pool");
    let killed: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = 'idle' AND datname = current_database()",
    )
    .fetch_one(&admin)
    .await
    .expect("kill");
    assert_eq!(killed, 1);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    health(pool).await.expect("a new connection");
}

/// Returns a pool of one connection, through a proxy.
async fn behind_a_proxy() -> (Proxy, PgPool) {
    let config = database().await;
    let (proxy, url) = Proxy::before(config.url.expose()).await.expect("a proxy");
    let config = PostgresConfig {
        url: Secret::new(url),
        max_connections: 1,
        ..config
    };
    let pool = store_pool(&config, "silent").await.expect("pool");
    (proxy, pool)
}

#[tokio::test]
async fn a_connection_that_went_silent_at_rest_is_replaced() {
    let (proxy, pool) = behind_a_proxy().await;
    health(pool.clone()).await.expect("it works");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    proxy.forget();
    health(pool).await.expect("a new connection");
}

#[tokio::test]
async fn a_connection_that_became_silent_in_a_transaction_is_discarded() {
    let (proxy, pool) = behind_a_proxy().await;
    let mut transaction = pool.begin().await.expect("it begins");
    proxy.forget();
    let statement = sqlx::query("SELECT 1").execute(&mut *transaction);
    let broken_off = limited_to(Duration::from_millis(200), statement).await;
    assert!(
        matches!(broken_off, Err(sqlx::Error::Io(_))),
        "{broken_off:?}"
    );
    drop(transaction);
    // The pool holds one connection, and does not wait for the silent one.
    health(pool).await.expect("a new connection");
}

fn migrator(table: &'static str, statements: &[&'static str]) -> Migrator {
    let migrations = statements.iter().enumerate().map(|(index, sql)| {
        let sql = sqlx::SqlStr::from_static(sql);
        Migration::new(
            index as i64 + 1,
            "made".into(),
            MigrationType::Simple,
            sql,
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(table);
    migrator
}

#[tokio::test]
async fn migrations_are_applied_and_checked() {
    let config = database().await;
    let pool = migration_pool(&config, "shop").await.expect("pool");
    let old = migrator("_shop", &["CREATE TABLE a (id int)"]);
    let new = migrator(
        "_shop",
        &["CREATE TABLE a (id int)", "CREATE TABLE b (id int)"],
    );
    let other = migrator("_library", &["CREATE TABLE c (id int)"]);
    let missing = check(&pool, &old).await.expect_err("missing");
    assert!(
        matches!(missing, MigrationError::Missing { version: 1, .. }),
        "{missing}"
    );
    migrate(&pool, &old).await.expect("applied");
    migrate(&pool, &other).await.expect("applied");
    check(&pool, &old).await.expect("up to date");
    let missing = check(&pool, &new).await.expect_err("missing");
    assert!(
        missing.to_string().contains("migration 2")
            && missing.to_string().contains("--migrate=auto"),
        "{missing}"
    );
    migrate(&pool, &new).await.expect("applied");
    migrate(&pool, &old)
        .await
        .expect("an older program bears a newer database");
    check(&pool, &old)
        .await
        .expect("an older program bears a newer database");
    let changed = migrator("_shop", &["CREATE TABLE a (id bigint)"]);
    let changed = check(&pool, &changed).await.expect_err("changed");
    assert!(
        matches!(changed, MigrationError::Changed { version: 1 }),
        "{changed}"
    );
}

#[tokio::test]
async fn an_unreachable_database_is_named_without_its_password() {
    let config = PostgresConfig {
        url: Secret::new("postgres://shop:hunter2@127.0.0.1:1/shop"),
        max_connections: 1,
        connect_timeout_ms: 300,
    };
    let error = migration_pool(&config, "shop")
        .await
        .expect_err("nothing is there");
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(
        text.contains("postgres://shop:***@127.0.0.1:1/shop"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

/// Starts a server that accepts connections and answers the request for TLS with `answer`, or drops the connection.
async fn impostor(answer: &'static [u8], parameters: &str) -> PostgresConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.expect("a request");
            stream.write_all(answer).await.expect("an answer");
        }
    });
    PostgresConfig {
        url: Secret::new(format!(
            "postgres://shop:hunter2@{address}/shop{parameters}"
        )),
        max_connections: 1,
        connect_timeout_ms: 20_000,
    }
}

#[tokio::test]
async fn a_balancer_that_drops_connections_has_no_database_behind_it_yet() {
    let config = impostor(b"", "").await;
    let error = store_pool(&config, "shop").await;
    let error = error.expect_err("no server answers");
    assert!(is_unavailable(&error), "{error:?}");
}

#[tokio::test]
async fn a_missing_certificate_is_a_permanent_error() {
    let config = impostor(b"S", "?sslmode=verify-full&sslrootcert=/nonexistent.pem").await;
    let error = store_pool(&config, "shop").await;
    let error = error.expect_err("there is no such file");
    assert!(!is_unavailable(&error), "{error:?}");
}
