//! Every migration of this service's database.

use sqlx::migrate::Migrator;

static OWN: Migrator = sqlx::migrate!("../migrations/order");

/// The service's own tables, then those that the messaging library brings for the barrier and the outbox; each has a
/// history of its own.
pub fn all() -> [Migrator; 2] {
    let own = Migrator::with_migrations(OWN.iter().cloned().collect());
    [own, saga_messaging::migrations::migrator()]
}
