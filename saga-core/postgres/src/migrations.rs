//! Migrations that are part of the program, and the means to apply and check them.

use crate::{
    config::PostgresConfig,
    pool::{self, open},
};
use sqlx::{
    PgPool, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};
use std::collections::BTreeMap;
use thiserror::Error;

/// Builds the migrator of SQL files that are part of the program. Each file comes with the version and the description
/// in its name. The migrator equals the one that sqlx reads from the files' folder, which a test of each folder checks.
pub fn embedded(files: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, sql): &(i64, &'static str, &'static str)| {
        let outside_transaction = sql.starts_with("-- no-transaction");
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            outside_transaction,
        )
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// The reason why a database does not have the migrations that the service needs.
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

/// Opens the pool for migrations: one connection without a time limit, because building an index may take long.
pub async fn migration_pool(config: &PostgresConfig, name: &str) -> Result<PgPool, MigrationError> {
    let one = PostgresConfig {
        max_connections: 1,
        ..config.clone()
    };
    open(
        &one,
        &format!("{name} migrations"),
        pool::MIGRATION_SETTINGS,
    )
    .await
    .map_err(|source| MigrationError::Connect {
        url: config.place(),
        source,
    })
}

/// Applies the missing migrations. Other processes may do the same concurrently: the migrator holds an advisory lock.
/// Migrations that this program does not know are not an error, because a newer version of the service may have applied
/// them.
pub async fn migrate(pool: &PgPool, migrator: &Migrator) -> Result<(), MigrationError> {
    let mut forward = Migrator::with_migrations(migrator.iter().cloned().collect());
    forward.set_ignore_missing(true);
    forward.dangerous_set_table_name(migrator.table_name.clone());
    forward.run(pool).await.map_err(MigrationError::Apply)
}

/// Applies each of `migrators` with [`migrate`], over a connection of its own.
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

/// Checks each of `migrators` with [`check`], over a connection of its own.
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

/// Fails if a migration is missing, unfinished or changed. Changes nothing.
pub async fn check(pool: &PgPool, migrator: &Migrator) -> Result<(), MigrationError> {
    let table = migrator.table_name.as_ref();
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(pool)
        .await
        .map_err(MigrationError::Read)?;
    let mut applied: BTreeMap<i64, (Vec<u8>, bool)> = BTreeMap::new();
    if exists {
        // The table's name comes from the program, never from outside.
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
