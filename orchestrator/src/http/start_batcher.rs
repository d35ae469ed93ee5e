//! Accepts concurrent starts in one transaction.

use crate::store::intake::{self, Accepted, Intake, IntakeError};
use saga_messaging::{
    batcher::{Batcher, BatcherSettings},
    outbox::{Outbox, Relay},
};
use saga_postgres::silence::limited;
use sqlx::PgPool;
use std::sync::Arc;

/// The batcher of the starts that are requested over HTTP.
pub type StartBatcher = Batcher<Intake, Accepted, Arc<IntakeError>>;

/// Returns the batcher that accepts concurrent starts in one transaction, and publishes them after its commit.
pub fn start_batcher(pool: PgPool, outbox: Outbox, relay: Relay) -> StartBatcher {
    Batcher::start("saga_starts", BatcherSettings::default(), move |batch| {
        let (pool, outbox, relay) = (pool.clone(), outbox.clone(), relay.clone());
        async move {
            let (answers, staged) = limited(intake::accept(&pool, &outbox, batch))
                .await
                .map_err(Arc::new)?;
            if let Some(staged) = staged {
                relay.publish_soon(staged);
            }
            Ok(answers)
        }
    })
}
