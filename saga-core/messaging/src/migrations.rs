//! The tables that this crate keeps in its users' databases.
//!
//! They have a migration history of their own, so that a service's migrations and the library's migrations never count
//! each other's versions.

use saga_postgres::migrations::embedded;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

/// The table with the history of these migrations.
const HISTORY_TABLE: &str = "_saga_messaging_migrations";

/// Applies the missing migrations. This is safe while other processes do the same: the migrator holds an advisory lock.
pub async fn apply(pool: &PgPool) -> Result<(), MigrateError> {
    migrator().run(pool).await
}

/// Returns the migrator, for a service that checks or lists migrations itself.
pub fn migrator() -> Migrator {
    let mut migrator = embedded(&[
        (1, "inbox", include_str!("../migrations/0001_inbox.sql")),
        (2, "outbox", include_str!("../migrations/0002_outbox.sql")),
        (3, "intent", include_str!("../migrations/0003_intent.sql")),
        (
            4,
            "database",
            include_str!("../migrations/0004_database.sql"),
        ),
    ]);
    migrator.dangerous_set_table_name(HISTORY_TABLE);
    migrator
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn migrations_are_those_of_the_folder() {
        saga_test_support::migrations::assert_embedded(
            &super::migrator(),
            concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"),
            &[
                "bdefc417f2f2b6fdb6c4755d95f8452ad0502fcf721d64a19579cc87e1fb767876cf9dcbb3ca70d5296e3259b55c285f",
                "e3627d36905d6cf1706470792e131f01a6c27839924bf4fc715c73a105efb52f7e9720bb4460948664e6f1bd3f44d99b",
                "8aff47717055d03c0620e0eaed81301ac54a3eb2afb52f0ca6b51a90a9149b4921aa9248065f9ec4d681cddc7a0de7a9",
                "ccf36378568fcee80f728c54b9f3b6a684ea0fc8dffd6d183a49dac0de23ba6ebbb3b33a9ae2e849a95cfb95166dbbab",
            ],
        )
        .await;
    }
}
