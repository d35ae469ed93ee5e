//! Starts over HTTP are durable before they are accepted, and accepted once a key.

use crate::fixture::{Database, INPUTS, new_saga};
use async_trait::async_trait;
use orchestrator::store::intake::{Accepted, Intake, accept};
use saga_core::{
    ids::SagaId,
    message::{Headers, OutgoingRecord},
};
use saga_messaging::{
    log::{Delivered, LogError, LogWriter},
    outbox::{Outbox, Relay, RelaySettings},
};
use tokio_util::sync::CancellationToken;

struct Nowhere;

#[async_trait]
impl LogWriter for Nowhere {
    async fn publish(&self, _records: &[OutgoingRecord]) -> Result<Vec<Delivered>, LogError> {
        Err(LogError::Unavailable("no log in this test".into()))
    }
}

/// The stager's end only: nothing is published.
fn outbox(database: &Database) -> Outbox {
    let pool = database.store.pool().clone();
    let (outbox, _relay, _running) = Relay::new(
        pool,
        Nowhere,
        RelaySettings::default(),
        CancellationToken::new(),
    );
    outbox
}

fn intake(saga: SagaId, key: Option<&str>, content: &[u8]) -> Intake {
    Intake {
        saga,
        record: OutgoingRecord {
            topic: INPUTS.to_owned(),
            partition: Some(0),
            key: saga.to_string().into_bytes(),
            headers: Headers::default(),
            payload: content.to_vec(),
        },
        idempotency: key.map(|key| (key.to_owned(), content.to_vec())),
    }
}

#[tokio::test]
async fn equal_keys_are_one_saga_within_a_batch_and_between_batches() {
    let database = Database::new().await;
    let outbox = outbox(&database);
    let [first, second, third, free] = [new_saga(), new_saga(), new_saga(), new_saga()];
    let batch = vec![
        intake(first, Some("key"), b"content"),
        intake(second, Some("key"), b"content"),
        intake(third, Some("key"), b"other"),
        intake(free, None, b"content"),
    ];
    let (answers, staged) = accept(database.store.pool(), &outbox, batch).await.unwrap();
    let expected = [
        Accepted::Saga(first),
        Accepted::Saga(first),
        Accepted::OtherContent,
        Accepted::Saga(free),
    ];
    assert_eq!(answers, expected);
    assert!(staged.is_some());
    assert_eq!(database.count("outbox").await, 1, "one row a batch");
    let later = vec![intake(new_saga(), Some("key"), b"content")];
    let (answers, staged) = accept(database.store.pool(), &outbox, later).await.unwrap();
    assert_eq!(answers, [Accepted::Saga(first)]);
    assert!(staged.is_none(), "nothing is sent again");
    assert_eq!(database.count("outbox").await, 1);
}
