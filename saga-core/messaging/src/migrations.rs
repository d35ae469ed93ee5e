//! The tables that this crate keeps in its users' databases.
//!
//! They have a migration history of their own, so a service's own migrations and the library's never count each
//! other's versions.

use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

/// Where the history of these migrations is kept.
const HISTORY_TABLE: &str = "_saga_messaging_migrations";

static EMBEDDED: Migrator = sqlx::migrate!("./migrations");

/// Applies what is missing. Safe while other processes do the same: the migrator holds an advisory lock.
pub async fn apply(pool: &PgPool) -> Result<(), MigrateError> {
    migrator().run(pool).await
}

/// For a service that checks or lists migrations itself.
pub fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(EMBEDDED.iter().cloned().collect());
    migrator.dangerous_set_table_name(HISTORY_TABLE);
    migrator
}
