//! Tests connections to the database that go silent: no data is forwarded, and no side is notified.

use crate::world::{Obedient, World, forward, records, replies};
use async_trait::async_trait;
use saga_core::message::Command;
use saga_core::secret::Secret;
use saga_messaging::consumer::{BatchError, Processor};
use saga_participant::{
    Answer, Failure,
    internal::{CommandProcessor, PerCommand, RawCommandHandler},
};
use saga_postgres::{PostgresConfig, silence::limited_to, store_pool};
use saga_test_support::{environment::TestEnv, proxy::Proxy};
use sqlx::{PgConnection, PgPool};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A limit that is shorter than a service's, and longer than any statement that gets its answer.
const LIMIT: Duration = Duration::from_secs(3);
const CONNECTIONS: u32 = 2;

/// Returns a database, and a service's pool that reaches it through a proxy.
async fn world() -> (World, Proxy, PgPool) {
    let url = TestEnv::postgres_only()
        .await
        .create_database("silent")
        .await;
    let (proxy, through) = Proxy::before(&url).await.unwrap();
    let config = PostgresConfig {
        url: Secret::new(through),
        max_connections: CONNECTIONS,
        connect_timeout_ms: 5_000,
    };
    let pool = store_pool(&config, "silent").await.unwrap();
    (World::on(&url).await, proxy, pool)
}

/// Does as the payload says, and lets the connection go silent after the first command that follows each `armed`.
struct Forgetful {
    proxy: Proxy,
    armed: AtomicBool,
}

#[async_trait]
impl RawCommandHandler<PgConnection> for Forgetful {
    async fn handle(&self, tx: &mut PgConnection, command: &Command) -> Result<Answer, Failure> {
        let answer = Obedient.handle(tx, command).await;
        if self.armed.swap(false, Ordering::SeqCst) {
            self.proxy.forget();
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_on_a_silent_connection_is_given_up_and_done_once_on_a_new_one() {
    let (world, proxy, pool) = world().await;
    let forgetful = Arc::new(Forgetful {
        proxy,
        armed: AtomicBool::new(false),
    });
    let handler = Arc::new(PerCommand::new(Arc::clone(&forgetful)));
    let mut frame = CommandProcessor::new(World::config(), handler, None, pool).0;
    // The loop runs more often than the pool has connections, so no connection may be lost.
    for offset in 0..2 * i64::from(CONNECTIONS) {
        let saga = world.saga();
        let mut batch = records(&[forward(saga, 1, "succeed")]);
        batch[0].offset = offset;
        forgetful.armed.store(true, Ordering::SeqCst);
        let given_up = limited_to(LIMIT, frame.process(&batch)).await;
        assert!(
            matches!(given_up, Err(BatchError::Retry(_))),
            "{given_up:?}"
        );
        assert!(world.effects(saga).await.is_empty());
        let answers = limited_to(LIMIT, frame.process(&batch)).await.unwrap();
        assert_eq!(replies(&answers).len(), 1);
        assert_eq!(world.effects(saga).await.len(), 1);
    }
}
