//! Promises about the barrier's rows and the intents: the counts of inserted rows, and which transaction waits for
//! which.

use super::*;
use crate::contract::{must_end, must_wait};
use saga_participant::storage::PublishedIntent;
use std::pin::pin;
use tokio::time::timeout;

pub async fn rows_that_stand_there_are_not_counted<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let sagas = sagas(&store, 2).await;
    let row = |saga, mark| (key(saga, Direction::Forward), entry(mark, at));
    let first = [row(sagas[0], Mark::Done)];
    assert_eq!(insert(&store, &first).await, 1);
    let both = [row(sagas[0], Mark::Refused), row(sagas[1], Mark::Refused)];
    assert_eq!(insert(&store, &both).await, 1);
    let stands = [first[0].clone(), both[1].clone()];
    assert_eq!(barrier_of(&store, &sagas).await, stands);
}

/// Returns the count and the mark of a rival's insertion that comes while the first row is neither committed nor rolled
/// back.
async fn rivals_insert<B: ParticipantBench>(bench: &B, first_commits: bool) -> (u64, Mark) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let forward = key(saga, Direction::Forward);
    let (done, refused) = (entry(Mark::Done, at), entry(Mark::Refused, at));
    let mut first = begin(&store).await;
    let mut second = begin(&store).await;
    let rows = [(&forward, &done)];
    assert_eq!(first.insert_barrier(&rows).await.unwrap(), 1);
    let rows = [(&forward, &refused)];
    let count = {
        let mut inserting = pin!(second.insert_barrier(&rows));
        must_wait(inserting.as_mut(), "a rival's insertion").await;
        if first_commits {
            first.commit().await.unwrap();
        } else {
            drop(first);
        }
        must_end(inserting, "a rival's insertion").await.unwrap()
    };
    second.commit().await.unwrap();
    let stands = barrier_of(&store, &[saga]).await;
    (count, stands[0].1.mark)
}

pub async fn a_rival_waits_for_the_row_that_is_being_inserted<B: ParticipantBench>(bench: &B) {
    assert_eq!(rivals_insert(bench, true).await, (0, Mark::Done));
}

pub async fn a_row_whose_insertion_is_rolled_back_is_the_rivals<B: ParticipantBench>(bench: &B) {
    assert_eq!(rivals_insert(bench, false).await, (1, Mark::Refused));
}

/// A transaction that waits for a lock must fail before its own time is over. Then a stalled rival can be distinguished
/// from work that takes too long.
pub async fn a_lock_is_given_up_before_the_statements_time_is_over<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let (forward, done) = (key(saga, Direction::Forward), entry(Mark::Done, at));
    let rows = [(&forward, &done)];
    let mut rival = begin(&store).await;
    rival.insert_barrier(&rows).await.unwrap();
    let limit = Duration::from_secs(6);
    let mut waiting = store.open(limit).await.unwrap();
    let waited = timeout(limit * 3 / 4, waiting.insert_barrier(&rows)).await;
    let given_up = waited.expect("it takes less than the statement's time");
    assert!(
        matches!(given_up, Err(BatchError::Retry(_))),
        "{given_up:?}"
    );
    drop(rival);
}

pub async fn reading_the_barrier_waits_for_nobody<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let mut writing = begin(&store).await;
    let forward = key(saga, Direction::Forward);
    writing
        .insert_barrier(&[(&forward, &entry(Mark::Done, at))])
        .await
        .unwrap();
    let read = must_end(barrier_of(&store, &[saga]), "reading").await;
    assert_eq!(read, []);
    drop(writing);
}

pub async fn only_pending_rows_are_settled<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let sagas = sagas(&store, 3).await;
    let row = |saga, mark| (key(saga, Direction::Forward), entry(mark, at));
    let stored = [row(sagas[0], Mark::Pending), row(sagas[1], Mark::Refused)];
    insert(&store, &stored).await;
    let outcomes: Vec<_> = sagas.iter().map(|saga| row(*saga, Mark::Done)).collect();
    let mut tx = begin(&store).await;
    let settled = tx.settle_barrier(&borrowed(&outcomes)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(settled, 1);
    let stands = [outcomes[0].clone(), stored[1].clone()];
    assert_eq!(barrier_of(&store, &sagas).await, stands);
}

pub async fn only_pending_rows_are_released<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let sagas = sagas(&store, 3).await;
    let row = |saga, mark| (key(saga, Direction::Forward), entry(mark, at));
    let stored = [row(sagas[0], Mark::Pending), row(sagas[1], Mark::Done)];
    insert(&store, &stored).await;
    let keys: Vec<RowKey> = sagas
        .iter()
        .map(|saga| key(*saga, Direction::Forward))
        .collect();
    let mut tx = begin(&store).await;
    let all: Vec<&RowKey> = keys.iter().collect();
    let released = tx.release_barrier(&all).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(released, 1);
    assert_eq!(barrier_of(&store, &sagas).await, stored[1..]);
}

pub async fn intents_are_overwritten_and_removed<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let forward = key(saga, Direction::Forward);
    write_intents(&store, &[(forward.clone(), intent(saga, at))]).await;
    let later = Intent {
        generation: 2,
        state: IntentState::Settled,
        replies: Some(vec![prepared(saga, at)]),
        ..intent(saga, at)
    };
    let row = (forward.clone(), later);
    write_intents(&store, std::slice::from_ref(&row)).await;
    assert_eq!(intents_of(&store, &[saga]).await, [row]);
    let mut tx = begin(&store).await;
    let missing = key(unknown_saga(), Direction::Forward);
    tx.remove_intents(&[&forward, &missing]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(intents_of(&store, &[saga]).await, []);
}

pub async fn locked_intents_make_a_rival_wait_and_see_what_came_of_them<B: ParticipantBench>(
    bench: &B,
) {
    let store = bench.store().await;
    let at = now(&store).await;
    let saga = sagas(&store, 1).await[0];
    let forward = key(saga, Direction::Forward);
    write_intents(&store, &[(forward.clone(), intent(saga, at))]).await;
    let mut first = begin(&store).await;
    first.lock_intents(&[saga]).await.unwrap();
    let mut second = begin(&store).await;
    let asked = [saga];
    let mut locking = pin!(second.lock_intents(&asked));
    must_wait(locking.as_mut(), "a rival's lock").await;
    let settled = Intent {
        state: IntentState::Settled,
        ..intent(saga, at)
    };
    let rows = [(&forward, &settled)];
    first.write_intents(&rows).await.unwrap();
    first.commit().await.unwrap();
    let seen = must_end(locking, "a rival's lock").await.unwrap();
    assert_eq!(seen, [(forward, settled)]);
}

pub async fn only_the_intent_that_was_told_of_is_closed<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let sagas = sagas(&store, 6).await;
    let row = |n: usize, generation, state| {
        let answered = Intent {
            generation,
            state,
            cancel: Some(command(sagas[n], Direction::Compensation)),
            replies: Some(vec![prepared(sagas[n], at)]),
            ..intent(sagas[n], at)
        };
        (key(sagas[n], Direction::Forward), answered)
    };
    let stored = [
        row(0, 1, IntentState::Settled),
        row(1, 2, IntentState::Settled),
        row(2, 1, IntentState::Released),
        row(3, 1, IntentState::Expired),
        row(4, 1, IntentState::Open),
        row(5, 2, IntentState::Released),
    ];
    write_intents(&store, &stored).await;
    let told = |n: usize, is_final| PublishedIntent {
        key: key(sagas[n], Direction::Forward),
        generation: 1,
        is_final,
    };
    let mut tx = begin(&store).await;
    tx.close_intents(&[
        told(0, true),
        told(1, true),
        told(2, false),
        told(3, false),
        told(4, false),
        told(5, false),
    ])
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let emptied = |(key, intent): &(RowKey, Intent)| {
        let answered = Intent {
            cancel: None,
            replies: None,
            ..intent.clone()
        };
        (key.clone(), answered)
    };
    let stands = [
        stored[1].clone(),
        emptied(&stored[2]),
        emptied(&stored[3]),
        stored[4].clone(),
        stored[5].clone(),
    ];
    assert_eq!(intents_of(&store, &sagas).await, stands);
}
