//! Starts over HTTP: each is durable before it is accepted, and each idempotency key is accepted once.

use crate::fixture::{Database, INPUTS, new_saga};
use async_trait::async_trait;
use orchestrator::store::intake::{Accepted, Intake, accept};
use saga_core::{
    ids::SagaId,
    message::{Headers, OutgoingRecord},
};
use saga_messaging::{
    consumer::Processor,
    log::{Delivered, LogError, LogWriter},
    outbox::{Outbox, Relay, RelaySettings},
};
use tokio_util::sync::CancellationToken;

struct Nowhere;

#[async_trait]
impl LogWriter for Nowhere {
    async fn publish_rest(
        &self,
        _: &[OutgoingRecord],
        _: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        Err(LogError::Unavailable("no log in this test".into()))
    }
}

/// Returns an outbox that can be staged to and that does not publish.
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
        // The generation that the fixture's registration leaves.
        generation: 1,
        own_key: None,
    }
}

fn with_business_key(saga: SagaId, key: Option<&str>) -> Intake {
    Intake {
        own_key: Some(("place-order".to_owned(), "mine".to_owned())),
        ..intake(saga, key, b"content")
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

#[tokio::test]
async fn a_business_key_is_claimed_before_its_saga_is_live_and_free_once_it_has_ended() {
    let database = Database::new().await;
    let pool = database.store.pool();
    let outbox = outbox(&database);
    let [first, second, third] = [new_saga(), new_saga(), new_saga()];
    // The first start of a batch gets the business key. A refused start leaves no idempotency key, and its repetition
    // is refused, too.
    let batch = vec![
        with_business_key(first, Some("one")),
        with_business_key(second, Some("two")),
        with_business_key(third, Some("two")),
        with_business_key(new_saga(), Some("one")),
    ];
    let (answers, _) = accept(pool, &outbox, batch).await.unwrap();
    let taken = Accepted::KeyTaken(first);
    let expected = [Accepted::Saga(first), taken, taken, Accepted::Saga(first)];
    assert_eq!(answers, expected);
    // The start is not consumed yet at first, and is live afterwards. The key is taken in both cases.
    let again = || accept(pool, &outbox, vec![with_business_key(second, Some("two"))]);
    assert_eq!(again().await.unwrap().0, [taken]);
    let start = database.start_with_key(first, "mine");
    let started = database.engine().process(&[start]).await.unwrap();
    assert_eq!(again().await.unwrap().0, [taken]);
    database.run_to_end(started).await;
    assert_eq!(again().await.unwrap().0, [Accepted::Saga(second)]);
}

#[tokio::test]
async fn a_start_is_not_accepted_if_definitions_have_changed_since_it_was_checked() {
    let database = Database::new().await;
    let outbox = outbox(&database);
    let saga = new_saga();
    let old = Intake {
        generation: 0,
        ..intake(saga, Some("key"), b"content")
    };
    let (answers, staged) = accept(database.store.pool(), &outbox, vec![old])
        .await
        .unwrap();
    assert_eq!(answers, [Accepted::OutOfDate]);
    assert!(staged.is_none());
    // The idempotency key is still free: the same request is decided again.
    let now = vec![intake(saga, Some("key"), b"content")];
    let (answers, _) = accept(database.store.pool(), &outbox, now).await.unwrap();
    assert_eq!(answers, [Accepted::Saga(saga)]);
}
