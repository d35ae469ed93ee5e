//! Promises about sweeps, which claim intents whose lease is over, and about the clock that decides that.

use super::*;
use crate::contract::must_end;
use saga_participant::storage::{ClaimLimits, Claimed};

const LONG: Duration = Duration::from_hours(1);

fn limits(calls: usize, replies: usize) -> ClaimLimits {
    ClaimLimits {
        calls,
        replies,
        lease: LONG,
    }
}

fn sagas_of(rows: &[(RowKey, Intent)]) -> Vec<SagaId> {
    let mut sagas: Vec<SagaId> = rows.iter().map(|(key, _)| key.saga_id).collect();
    sagas.sort_unstable();
    sagas
}

async fn claim<S: ParticipantStore>(store: &S, limits: ClaimLimits) -> Claimed {
    must_end(store.claim(limits), "a claim").await.unwrap()
}

/// Writes one intent of each kind. All leases but the first are over. The sagas are in this order: claimed, open,
/// released and published, released and not published, expired and not published.
async fn one_of_each<S: ParticipantStore>(store: &S) -> Vec<SagaId> {
    let at = now(store).await;
    let over = at - LONG;
    let sagas = sagas(store, 5).await;
    let row = |n: usize, lease, state, told: bool| {
        let saga = sagas[n];
        let intent = Intent {
            state,
            replies: (!told).then(|| vec![prepared(saga, at)]),
            ..intent(saga, lease)
        };
        (key(saga, Direction::Forward), intent)
    };
    let rows = [
        row(0, at + LONG, IntentState::Open, true),
        row(1, over, IntentState::Open, true),
        row(2, over, IntentState::Released, true),
        row(3, over, IntentState::Released, false),
        row(4, over, IntentState::Expired, false),
    ];
    write_intents(store, &rows).await;
    sagas
}

pub async fn expired_leases_are_claimed_once<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let sagas = one_of_each(&store).await;
    let claimed = claim(&store, limits(10, 10)).await;
    assert_eq!(sagas_of(&claimed.calls), sagas[1..2]);
    assert_eq!(sagas_of(&claimed.replies), sagas[3..5]);
    assert_eq!((claimed.open, claimed.expired), (4, 1));
    assert!(
        claimed.calls[0].1.lease_until >= claimed.now + LONG - Duration::from_mins(1),
        "the claim says until when"
    );
    let again = claim(&store, limits(10, 10)).await;
    assert_eq!(sagas_of(&again.calls), []);
    assert_eq!(sagas_of(&again.replies), []);
}

pub async fn no_more_is_claimed_than_asked_for<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let at = now(&store).await;
    let sagas = sagas(&store, 3).await;
    // The oldest lease is claimed first.
    let rows: Vec<(RowKey, Intent)> = sagas
        .iter()
        .zip([1, 3, 2])
        .map(|(saga, age)| {
            let over = at - LONG * age;
            (key(*saga, Direction::Forward), intent(*saga, over))
        })
        .collect();
    write_intents(&store, &rows).await;
    for oldest in [1, 2, 0] {
        let claimed = claim(&store, limits(1, 1)).await;
        assert_eq!(sagas_of(&claimed.calls), [sagas[oldest]]);
    }
    assert_eq!(sagas_of(&claim(&store, limits(1, 1)).await.calls), []);
    assert_eq!(sagas_of(&claim(&store, limits(0, 0)).await.calls), []);
}

pub async fn an_intent_that_a_transaction_holds_is_not_claimed<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let sagas = one_of_each(&store).await;
    let mut holding = begin(&store).await;
    holding.lock_intents(&[sagas[1], sagas[3]]).await.unwrap();
    let claimed = claim(&store, limits(10, 10)).await;
    assert_eq!(sagas_of(&claimed.calls), []);
    assert_eq!(sagas_of(&claimed.replies), sagas[4..5]);
    drop(holding);
    // A dropped transaction releases its locks soon, but not at once.
    must_end(
        async {
            loop {
                let claimed = claim(&store, limits(10, 10)).await;
                if !claimed.calls.is_empty() {
                    break assert_eq!(sagas_of(&claimed.calls), sagas[1..2]);
                }
                tokio::time::sleep(LEASE).await;
            }
        },
        "a claim of what was let go",
    )
    .await;
}

pub async fn the_clock_moves_with_time<B: ParticipantBench>(bench: &B) {
    let store = bench.store().await;
    let mut tx = begin(&store).await;
    let earlier = terms_of(&mut tx).await.now;
    drop(tx);
    tokio::time::sleep(LEASE).await;
    let later = store.now().await.unwrap();
    assert!(later >= earlier + LEASE / 2, "{later} {earlier}");
}
