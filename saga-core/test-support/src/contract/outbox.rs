//! The promises of an [`OutboxStore`] and its [`OutboxTx`].

use super::must_end;
use async_trait::async_trait;
use saga_messaging::outbox::storage::{OutboxStore, OutboxTx};
use std::time::Duration;

/// Makes outboxes of the implementation under test.
#[async_trait]
pub trait OutboxBench: Send + Sync {
    type Store: OutboxStore;
    type Tx: Send;
    /// The part of a transaction that stages rows.
    type Stager: OutboxTx;

    /// Returns an empty outbox, for one test.
    async fn store(&self) -> Self::Store;

    async fn begin(&self, store: &Self::Store) -> Self::Tx;

    fn stager<'a>(&self, tx: &'a mut Self::Tx) -> &'a mut Self::Stager;

    async fn commit(&self, tx: Self::Tx);
}

/// Makes one test of each promise; see [`participant_store_contract!`](crate::participant_store_contract).
#[macro_export]
macro_rules! outbox_store_contract {
    ($bench:expr, $(#[$test:meta])+) => {
        $crate::contract_tests! {
            $bench, [$(#[$test])+], [$crate::contract::outbox],
            a_row_that_is_not_committed_is_not_swept,
            a_row_is_swept_when_its_claim_is_over,
            what_is_swept_is_claimed_anew,
            rows_are_swept_in_the_order_of_their_ids,
            a_removal_that_is_rolled_back_leaves_the_row,
            a_row_that_a_transaction_removes_is_not_swept,
            removed_rows_are_gone
        }
    };
}

/// A lease that has ended by the time of the next statement.
const SHORT: Duration = Duration::from_millis(1);
/// A lease that does not end in any test.
const LONG: Duration = Duration::from_hours(1);

/// Writes a row of two records in a separate transaction.
async fn stage<B: OutboxBench>(bench: &B, store: &B::Store, text: &[u8], lease: Duration) -> i64 {
    let mut tx = bench.begin(store).await;
    let staged = bench.stager(&mut tx).replace(&[], 2, text, lease).await;
    bench.commit(tx).await;
    staged.expect("a row is written")
}

/// Returns the rows that a sweep claims once short leases are over.
async fn swept<S: OutboxStore>(store: &S, limit: usize) -> Vec<(i64, Vec<u8>)> {
    tokio::time::sleep(SHORT * 5).await;
    must_end(store.claim(limit, LONG), "a sweep")
        .await
        .expect("rows are claimed")
}

pub async fn a_row_that_is_not_committed_is_not_swept<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    let mut tx = bench.begin(&store).await;
    bench
        .stager(&mut tx)
        .replace(&[], 1, b"[]", SHORT)
        .await
        .expect("a row is written");
    assert_eq!(swept(&store, 10).await, []);
    drop(tx);
    assert_eq!(swept(&store, 10).await, []);
    assert_eq!(store.abandoned().await.expect("a count"), 0);
}

pub async fn a_row_is_swept_when_its_claim_is_over<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    stage(bench, &store, b"claimed", LONG).await;
    let bytes = [0, 0xff, b'"', b'\n'];
    let id = stage(bench, &store, &bytes, SHORT).await;
    tokio::time::sleep(SHORT * 5).await;
    assert_eq!(store.abandoned().await.expect("a count"), 2);
    assert_eq!(swept(&store, 10).await, [(id, bytes.to_vec())]);
    assert_eq!(store.abandoned().await.expect("a count"), 0);
}

pub async fn what_is_swept_is_claimed_anew<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    let id = stage(bench, &store, b"[]", SHORT).await;
    tokio::time::sleep(SHORT * 5).await;
    let first = store.claim(10, SHORT).await.expect("rows are claimed");
    assert_eq!(first, [(id, b"[]".to_vec())]);
    assert_eq!(swept(&store, 10).await, first, "its claim was short");
    assert_eq!(swept(&store, 10).await, [], "its claim is long");
}

pub async fn rows_are_swept_in_the_order_of_their_ids<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stage(bench, &store, b"[]", SHORT).await);
    }
    let of = |rows: Vec<(i64, Vec<u8>)>| rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(of(swept(&store, 2).await), ids[..2]);
    assert_eq!(of(swept(&store, 10).await), ids[2..]);
}

pub async fn a_removal_that_is_rolled_back_leaves_the_row<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    let id = stage(bench, &store, b"[]", SHORT).await;
    let mut tx = bench.begin(&store).await;
    let stager = bench.stager(&mut tx);
    let replaced = stager.replace(&[id], 1, b"new", SHORT).await;
    replaced.expect("a row is replaced");
    drop(tx);
    // A dropped transaction releases its locks soon, but not at once.
    let found = must_end(
        async {
            loop {
                let rows = swept(&store, 10).await;
                if !rows.is_empty() {
                    break rows;
                }
            }
        },
        "a sweep of what was let go",
    );
    assert_eq!(found.await, [(id, b"[]".to_vec())]);
}

pub async fn a_row_that_a_transaction_removes_is_not_swept<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    let removed = stage(bench, &store, b"1", SHORT).await;
    let other = stage(bench, &store, b"2", SHORT).await;
    let mut tx = bench.begin(&store).await;
    let stager = bench.stager(&mut tx);
    // Replacing a row that was removed already is no error.
    let done = stager.replace(&[removed, i64::MAX], 1, b"3", SHORT).await;
    let new = done.expect("a row is replaced");
    assert_eq!(swept(&store, 10).await, [(other, b"2".to_vec())]);
    bench.commit(tx).await;
    assert_eq!(swept(&store, 10).await, [(new, b"3".to_vec())]);
}

pub async fn removed_rows_are_gone<B: OutboxBench>(bench: &B) {
    let store = bench.store().await;
    let first = stage(bench, &store, b"1", SHORT).await;
    let second = stage(bench, &store, b"2", SHORT).await;
    store.remove(&[first]).await.expect("rows are removed");
    let gone_already = store.remove(&[first, i64::MAX]).await;
    gone_already.expect("that is no error");
    assert_eq!(swept(&store, 10).await, [(second, b"2".to_vec())]);
}
