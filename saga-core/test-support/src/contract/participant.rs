//! The promises of a [`ParticipantStore`].

// In test code, clippy does not report wildcard imports.
#![cfg_attr(
    not(test),
    expect(
        clippy::wildcard_imports,
        reason = "the parts of one suite share its helpers"
    )
)]

mod claims;
mod rows;
mod transactions;

pub use claims::*;
pub use rows::*;
pub use transactions::*;

use async_trait::async_trait;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
    message::{Command, Direction, Outcome, Reply, ReplyTo, Trace},
};
use saga_messaging::consumer::BatchError;
use saga_participant::storage::{
    BarrierRow, Intent, IntentState, ParticipantStore, ParticipantTx, PreparedReply, RowKey,
    SavedReply, TxContext,
};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// Makes stores of the implementation under test.
#[async_trait]
pub trait ParticipantBench: Send + Sync {
    type Store: ParticipantStore;

    /// Returns a store with empty tables, for one test.
    async fn store(&self) -> Self::Store;

    /// Writes an effect, as a handler would.
    async fn write(
        &self,
        connection: &mut <Self::Store as ParticipantStore>::Connection,
        effect: &str,
    ) -> Result<(), BatchError>;

    /// Returns the committed effects, sorted.
    async fn effects(&self, store: &Self::Store) -> Vec<String>;
}

/// Makes one test of each promise: `participant_store_contract!(Bench, #[tokio::test])`, where `Bench` is an expression
/// of a [`ParticipantBench`].
#[macro_export]
macro_rules! participant_store_contract {
    ($bench:expr, $(#[$test:meta])+) => {
        $crate::contract_tests! {
            $bench, [$(#[$test])+], [$crate::contract::participant],
            what_is_not_committed_is_not_there,
            what_is_committed_stands_as_it_was_written,
            the_seen_floor_only_rises,
            a_transaction_sees_what_it_wrote,
            what_follows_a_savepoint_is_undone_alone,
            rows_that_stand_there_are_not_counted,
            a_rival_waits_for_the_row_that_is_being_inserted,
            a_row_whose_insertion_is_rolled_back_is_the_rivals,
            a_lock_is_given_up_before_the_statements_time_is_over,
            reading_the_barrier_waits_for_nobody,
            only_pending_rows_are_settled,
            only_pending_rows_are_released,
            intents_are_overwritten_and_removed,
            locked_intents_make_a_rival_wait_and_see_what_came_of_them,
            only_the_intent_that_was_told_of_is_closed,
            expired_leases_are_claimed_once,
            no_more_is_claimed_than_asked_for,
            an_intent_that_a_transaction_holds_is_not_claimed,
            the_clock_moves_with_time
        }
    };
}

/// Makes the tests of one contract.
#[macro_export]
#[doc(hidden)]
macro_rules! contract_tests {
    ($bench:expr, $tests:tt, $contract:tt, $($promise:ident),+) => {
        $($crate::contract_tests!{@one $bench, $tests, $contract, $promise})+
    };
    (@one $bench:expr, [$(#[$test:meta])+], [$($contract:tt)+], $promise:ident) => {
        $(#[$test])+
        async fn $promise() {
            $($contract)+::$promise(&$bench).await;
        }
    };
}

const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_millis(40);

async fn begin<S: ParticipantStore>(store: &S) -> S::Tx {
    store
        .open(STATEMENT_TIMEOUT)
        .await
        .expect("a transaction begins")
}

/// Returns the terms that a transaction reads now.
async fn terms_of<T: ParticipantTx>(tx: &mut T) -> TxContext {
    let looked = tx.read_barrier(&[]).await;
    looked.expect("the barrier is read").terms
}

/// Writes rows of the barrier in a separate transaction.
async fn insert<S: ParticipantStore>(store: &S, rows: &[(RowKey, BarrierRow)]) -> u64 {
    let mut tx = begin(store).await;
    let count = tx
        .insert_barrier(&borrowed(rows))
        .await
        .expect("rows are inserted");
    tx.commit().await.expect("the transaction commits");
    count
}

async fn write_intents<S: ParticipantStore>(store: &S, rows: &[(RowKey, Intent)]) {
    let mut tx = begin(store).await;
    tx.write_intents(&borrowed(rows))
        .await
        .expect("intents are written");
    tx.commit().await.expect("the transaction commits");
}

async fn barrier_of<S: ParticipantStore>(store: &S, sagas: &[SagaId]) -> Vec<(RowKey, BarrierRow)> {
    let mut tx = begin(store).await;
    let mut rows = tx
        .read_barrier(sagas)
        .await
        .expect("the barrier is read")
        .rows;
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    rows
}

async fn intents_of<S: ParticipantStore>(store: &S, sagas: &[SagaId]) -> Vec<(RowKey, Intent)> {
    let mut tx = begin(store).await;
    let mut rows = tx.lock_intents(sagas).await.expect("intents are read");
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    rows
}

fn borrowed<T>(rows: &[(RowKey, T)]) -> Vec<(&RowKey, &T)> {
    rows.iter().map(|(key, row)| (key, row)).collect()
}

/// Returns sagas that begin now, in the order of their ids.
async fn sagas<S: ParticipantStore>(store: &S, count: u64) -> Vec<SagaId> {
    let now = store.now().await.expect("the store has a clock");
    let ms = now.timestamp_millis() as u64;
    (0..count)
        .map(|number| {
            let mut random = [0; 10];
            random[2..].copy_from_slice(&number.to_be_bytes());
            SagaId(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
        })
        .collect()
}

fn key(saga: SagaId, direction: Direction) -> RowKey {
    RowKey {
        saga_id: saga,
        step: "a-step".to_owned(),
        direction,
    }
}

fn entry(mark: Mark, at: Timestamp) -> BarrierRow {
    let reply = SavedReply {
        reply_type: "test.done".to_owned(),
        outcome: Outcome::Success,
        payload: json!({"text": "ä\"", "number": 1.5, "none": null}),
    };
    BarrierRow {
        mark,
        reply: matches!(mark, Mark::Done | Mark::Failed).then_some(reply),
        handled_at: at,
    }
}

fn command(saga: SagaId, direction: Direction) -> Command {
    Command {
        saga_id: saga,
        step: "a-step".to_owned(),
        direction,
        attempt: 2,
        command_type: "test.do".to_owned(),
        payload: json!({"amount": 7}),
        save_failure: true,
        reply_to: ReplyTo {
            topic: "saga.inputs".to_owned(),
            partition: 3,
        },
        floor: None,
        trace: Trace::default(),
    }
}

/// Returns an open intent whose lease ends at `lease_until`.
fn intent(saga: SagaId, lease_until: Timestamp) -> Intent {
    Intent {
        generation: 1,
        state: IntentState::Open,
        lease_until,
        opened_at: lease_until,
        command: command(saga, Direction::Forward),
        cancel: None,
        resolve: None,
        replies: None,
    }
}

fn prepared(saga: SagaId, at: Timestamp) -> PreparedReply {
    PreparedReply {
        reply: Reply {
            saga_id: saga,
            step: "a-step".to_owned(),
            direction: Direction::Forward,
            attempt: 2,
            reply_type: "test.done".to_owned(),
            outcome: Outcome::Success,
            payload: json!({}),
            trace: Trace::default(),
        },
        reply_to: ReplyTo {
            topic: "saga.inputs".to_owned(),
            partition: 3,
        },
        at,
    }
}

/// Returns the current time, with the precision that every store keeps.
async fn now<S: ParticipantStore>(store: &S) -> Timestamp {
    let now = store.now().await.expect("the store has a clock");
    Timestamp::from_timestamp_millis(now.timestamp_millis()).unwrap_or(now)
}

/// Returns a saga that no row belongs to.
fn unknown_saga() -> SagaId {
    SagaId(Uuid::max())
}
